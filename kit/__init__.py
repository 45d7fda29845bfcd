"""Plumbing without business words: database, object storage, settings, errors, telemetry."""
