"""`lorry import` tells what it kept and what it left out, for people and for scripts."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kit.settings import DatabaseSettings
from tests.support.command import Lorry
from tests.support.registry_server import registry_settings, registry_url
from transcripts.tally import Reason

__all__ = ["registry_settings", "registry_url"]


@pytest.fixture
def lorry(registry_url: str, database_settings: DatabaseSettings, tmp_path: Path) -> Lorry:
    return Lorry(registry_url=registry_url, database_url=database_settings.database_url, home=tmp_path / "home")


def said(sender: str, text: str, minute: int, **extra: Any) -> dict[str, Any]:
    time = f"2026-01-02T03:{minute:02d}:00Z"
    return {"uuid": f"{minute}", "sender": sender, "text": text, "created_at": time, "content": [], **extra}


@pytest.fixture
def export(tmp_path: Path) -> Path:
    attached = [{"file_name": "notes.txt", "extracted_content": "CONFIDENTIAL"}]
    talk = [
        said("human", "How many bees?\n```\nhive = 1\n```", 1, attachments=attached),
        said(
            "assistant", "Twelve.", 2, content=[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "12"}]
        ),
    ]
    conversations = [
        {"uuid": "1", "name": "Bees", "chat_messages": talk},
        {"uuid": "2", "name": "", "chat_messages": []},
    ]
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("users.json", "[]")
        archive.writestr("conversations.json", json.dumps(conversations))
    return path


async def test_an_export_is_imported_with_every_reason_counted(lorry: Lorry, export: Path) -> None:
    told = await lorry.json("import", "ada", str(export))
    assert (told["new"], told["known"], told["skipped"], told["user_words"]) == (1, 0, 1, 3)
    assert told["formats"] == {"claude-ai": 1}
    assert told["kept"] == {"conversations": 1, "messages": 2, "user_messages": 1}
    assert set(told["dropped"]) == {reason.value for reason in Reason}
    dropped = {reason: number for reason, number in told["dropped"].items() if number}
    assert dropped == {"attachment": 1, "pasted": 1, "thinking": 1, "no-user-turn": 1, "not-a-transcript": 1}


async def test_importing_again_changes_nothing_and_people_are_shown_a_table(lorry: Lorry, export: Path) -> None:
    await lorry.json("import", "ada", str(export))
    code, told, shown = await lorry("import", "ada", str(export))
    assert code == 0, shown
    assert "0 new transcripts, 1 known already" in told
    for words in ("claude-ai (1 file)", "attachment", "pasted", "not their words"):
        assert words in shown
    assert "CONFIDENTIAL" not in told + shown


async def test_what_was_pasted_can_be_kept(lorry: Lorry, export: Path) -> None:
    told = await lorry.json("import", "ada", str(export), "--keep-pasted")
    assert told["dropped"]["pasted"] == 0
    assert told["user_words"] > 3


async def test_a_broken_export_ends_with_2_and_keeps_nothing(lorry: Lorry, export: Path) -> None:
    export.write_bytes(export.read_bytes()[:-30])
    code, told, complained = await lorry("import", "ada", str(export))
    assert (code, told) == (2, "")
    assert "export.zip" in complained
    code, _, _ = await lorry("status", "ada")
    assert code == 3
