"""Data keys: one a user, wrapped by the master key."""
