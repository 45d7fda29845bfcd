"""From what a batch selects to its users, each with the version that is asked."""
