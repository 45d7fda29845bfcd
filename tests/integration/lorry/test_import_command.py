"""`lorry import` tells what it kept and what it left out, for people and for scripts."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kit.database import Database
from kit.settings import DatabaseSettings
from tests.support.command import Lorry
from tests.support.nursery import Nursery
from tests.support.registry_server import registry_settings, registry_url
from transcripts.store import TranscriptStore
from transcripts.tally import Reason

__all__ = ["registry_settings", "registry_url"]


@pytest.fixture
def lorry(nursery: Nursery, registry_url: str, database_settings: DatabaseSettings, tmp_path: Path) -> Lorry:
    return Lorry(
        nursery, registry_url=registry_url, database_url=database_settings.database_url, home=tmp_path / "home"
    )


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
    imported = await lorry.json("import", "ada", str(export))
    assert (imported["new"], imported["known"], imported["skipped"], imported["user_words"]) == (1, 0, 1, 3)
    assert imported["formats"] == {"claude-ai": 1}
    assert imported["kept"] == {"conversations": 1, "messages": 2, "user_messages": 1}
    assert set(imported["dropped"]) == {reason.value for reason in Reason}
    dropped = {reason: number for reason, number in imported["dropped"].items() if number}
    assert dropped == {"attachment": 1, "pasted": 1, "thinking": 1, "no-user-turn": 1, "not-a-transcript": 1}
    # Once more, for people: nothing changes, and there is a table.
    code, told, shown = await lorry("import", "ada", str(export))
    assert code == 0, shown
    assert "0 new transcripts, 1 known already" in told
    for words in ("claude-ai (1 file)", "attachment", "pasted", "not their words"):
        assert words in shown
    assert "CONFIDENTIAL" not in told + shown


async def test_a_conversation_that_is_too_large_is_named_and_the_rest_imported(lorry: Lorry, tmp_path: Path) -> None:
    talks = {"Everything": "word " * (4 << 20), "Bees": "Twelve."}
    export = [{"uuid": name, "name": name, "chat_messages": [said("human", text, 1)]} for name, text in talks.items()]
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps(export))
    imported = await lorry.json("import", "ada", str(path))
    assert (imported["new"], imported["skipped"], imported["dropped"]["too-large"]) == (1, 0, 1)
    (which,) = imported["too_large"]
    assert "line 1: [0] 'Everything': one conversation is larger" in which
    code, _, shown = await lorry("import", "ada", str(path))
    assert (code, f"left out: {which}" in shown) == (0, True), shown


async def test_a_run_tells_what_its_import_kept_before_it_goes_on(lorry: Lorry, export: Path) -> None:
    code, told, shown = await lorry("run", "ada", str(export))
    assert (code, told) == (2, ""), shown  # a conversation alone is too little to train on
    for words in ("claude-ai (1 file)", "not their words", "1 new transcript, 0 known already", "ada now has 1 transc"):
        assert words in shown
    assert shown.index("ada now has") < shown.index("single conversation")


async def test_what_was_pasted_can_be_kept(lorry: Lorry, export: Path) -> None:
    told = await lorry.json("import", "ada", str(export), "--keep-pasted")
    assert told["dropped"]["pasted"] == 0
    assert told["user_words"] > 3


async def test_a_broken_export_ends_with_2_and_keeps_nothing(lorry: Lorry, export: Path, database: Database) -> None:
    export.write_bytes(export.read_bytes()[:-30])
    code, told, complained = await lorry("import", "ada", str(export))
    assert (code, told) == (2, "")
    assert "export.zip" in complained
    async with database.reading() as session:
        assert await TranscriptStore(session).users("default") == []
