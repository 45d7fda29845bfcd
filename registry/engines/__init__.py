"""Which engines there are, what they hold, and what they must stop serving."""
