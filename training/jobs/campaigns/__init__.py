"""Campaigns: every user of a tenant is trained again, for a new base model, at a bounded rate."""
