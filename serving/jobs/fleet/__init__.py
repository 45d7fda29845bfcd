"""The processes that work batches off."""
