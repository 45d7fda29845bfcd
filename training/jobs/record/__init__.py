"""What has happened to a job: the stages that it finished, and its events."""
