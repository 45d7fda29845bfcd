"""Question writers: each turns transcripts into examples."""
