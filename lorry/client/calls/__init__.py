"""The calls of the public API, as values: what is sent, and how the answer is read. Both clients send them."""
