"""Trainings over HTTP: what the training service does, for one tenant's own users."""
