"""What is done to all versions, page by page, again and again: retention and reconcile."""
