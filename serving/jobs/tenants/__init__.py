"""What tenants may have in batches, and the secrets that sign what they are told."""
