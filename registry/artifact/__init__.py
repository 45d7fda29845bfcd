"""What an adapter's files may be: configuration, tensors, sizes; decided without a service."""
