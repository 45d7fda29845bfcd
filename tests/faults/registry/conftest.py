"""Fixtures of the registry's tests."""

from tests.support.registry_server import client, registry_settings, registry_url

__all__ = ["client", "registry_settings", "registry_url"]
