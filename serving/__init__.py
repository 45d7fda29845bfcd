"""Adapter name to tokens and profiles: engine, gateway, extraction."""
