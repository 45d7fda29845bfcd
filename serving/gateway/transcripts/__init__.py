"""Transcripts over HTTP: put, read, listed and deleted one by one, or many at once."""
