"""Which adapters exist: publish, validate, resolve, alias."""
