"""What the adapter is asked, what it answers, and which answers say the same."""
