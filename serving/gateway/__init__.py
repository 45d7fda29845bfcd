"""The public HTTP API; stateless."""
