"""Transcripts to adapter: dataset, QLoRA training, evaluation, publishing."""
