"""Reading short English messages without a model: words, clauses, whose voice it is, what is taken back."""
