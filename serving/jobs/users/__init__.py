"""The users of batches: whose turn it is, who is in whose hands, what became of them."""
