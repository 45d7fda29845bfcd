"""Fixtures of the tests of erasures: a registry over HTTP, trainings, a home, a conductor."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.database import Database
from lorry.home import Home
from registry.client import RegistryClient
from tests.integration.training_jobs.conftest import harbour, tiny_base, working
from tests.support.erasing import Erasing
from tests.support.registry_server import client, registry_settings, registry_url

__all__ = ["client", "harbour", "registry_settings", "registry_url", "tiny_base", "working"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home of this test's own."""
    return Home.open(tmp_path / "home")


@pytest.fixture
def erasing(database: Database, client: RegistryClient, home: Home) -> Erasing:
    """A conductor that reaches everything of this test."""
    return Erasing(database=database, registry=client, home=home)
