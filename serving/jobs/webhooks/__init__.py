"""Telling a tenant's own service that a batch has ended."""
