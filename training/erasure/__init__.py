"""A user's jobs, writings, costs and folders, taken away: in the database, at question writers, on every disk."""
