"""One module per group of `lorry` commands."""
