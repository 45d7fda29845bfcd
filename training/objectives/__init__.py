"""What a training minimises: the answers' own words, a teacher's distribution, closeness to the base."""
