"""How much a tenant may ask: a rate, a burst after a pause, and how many requests may run at once."""
