"""The training service: jobs, campaigns, quotas, rules and costs over HTTP. Workers do the work (`training.jobs`)."""
