"""Reading: resolve, list, search, compare."""
