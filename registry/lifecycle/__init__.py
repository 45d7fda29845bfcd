"""What happens to a version after it is ready: aliases, suspension, retirement, erasure, policy."""
