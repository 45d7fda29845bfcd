"""What runs inside the vLLM process."""
