"""How good a dataset's examples are: what repeats, leaks, says nothing or is out of balance, found before training."""
