"""The workers: who is alive, who is not, and whose work is adopted."""
