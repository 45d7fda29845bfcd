"""A home whose base can be trained, for tests that do not make one of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.settings import DatabaseSettings
from tests.support.command import Lorry
from tests.support.nursery import Nursery
from tests.support.people import write_transcripts
from tests.support.registry_server import registry_settings, registry_url
from tests.support.tiny_base import write_tiny_base

__all__ = ["registry_settings", "registry_url"]


@pytest.fixture
async def lorry(
    nursery: Nursery, registry_url: str, database_settings: DatabaseSettings, base_directory: Path, tmp_path: Path
) -> Lorry:
    """The command of a home with Ada's transcripts, on a base of two layers."""
    command = Lorry(
        nursery, registry_url=registry_url, database_url=database_settings.database_url, home=tmp_path / "home"
    )
    command.environment["LORRY_BASE_MODEL"] = str(write_tiny_base(tmp_path / "base", tokenizer_from=base_directory))
    await command.json("import", "ada", str(write_transcripts(tmp_path / "ada.jsonl")))
    return command
