"""Trainings that nobody submits: each tenant's rules, looked at now and then."""
