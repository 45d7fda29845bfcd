"""What trainings cost: tokens, dollars, device seconds; reckoned before, counted after."""
