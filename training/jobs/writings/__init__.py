"""What question writers were asked and have answered: paid for, so kept until the job has ended."""
