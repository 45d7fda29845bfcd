"""The public API, awaited; `blocking` is made of it."""
