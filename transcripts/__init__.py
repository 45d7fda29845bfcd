"""What users said: formats, import, store, search."""
