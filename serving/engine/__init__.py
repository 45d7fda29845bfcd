"""What runs inside a stock vLLM OpenAI server, through its plug points.

vLLM is imported in this package only.
"""
