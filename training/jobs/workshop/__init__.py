"""The stages of a job, done: transcripts → questions → dataset → adapter → evaluation → version."""
