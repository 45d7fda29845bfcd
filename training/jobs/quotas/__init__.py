"""What a tenant's trainings may use."""
