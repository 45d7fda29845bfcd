"""What runs in vLLM's workers: adapters are read, checked and prepared beside the engine's thread."""
