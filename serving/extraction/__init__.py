"""Questions to evidence-checked profile."""
