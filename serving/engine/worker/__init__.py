"""What runs in vLLM's workers: adapters are read, checked and prepared beside the engine's thread.

Only `serving.engine.worker_seam` touches vLLM's private parts.
"""
