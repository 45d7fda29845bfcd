"""What is left of an owner who was erased, and the end of their name."""
