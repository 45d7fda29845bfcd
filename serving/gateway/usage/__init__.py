"""What tenants used: requests and tokens, by user and day."""
