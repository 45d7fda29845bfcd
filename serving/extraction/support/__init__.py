"""Which of the user's own words back a claim, deny it, or do neither."""
