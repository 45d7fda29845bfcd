"""Answering a repeated request as it was answered before."""
