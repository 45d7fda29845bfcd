"""What an on-call engineer is told of trainings: counts that name nobody."""
