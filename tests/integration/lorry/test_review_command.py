"""`lorry review` as people and scripts call it, on a real database."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.database import Database
from kit.settings import DatabaseSettings
from tests.support.command import Lorry
from tests.support.nursery import Nursery
from tests.support.people import write_transcripts
from tests.support.registry_server import registry_settings, registry_url
from tests.support.writers import conversations
from training.curation import Curation, Decision
from training.curations.repository import CurationRepository
from transcripts.store import TranscriptStore

__all__ = ["registry_settings", "registry_url"]


@pytest.fixture
async def lorry(nursery: Nursery, registry_url: str, database_settings: DatabaseSettings, tmp_path: Path) -> Lorry:
    command = Lorry(
        nursery, registry_url=registry_url, database_url=database_settings.database_url, home=tmp_path / "home"
    )
    await command.json("import", "ada", str(write_transcripts(tmp_path / "ada.jsonl")))
    await command.json("build-dataset", "ada")
    return command


def by_status(review: dict[str, Any], status: str) -> list[dict[str, Any]]:
    return [pair for pair in review["pairs"] if pair["status"] == status]


async def test_decisions_hold_until_they_are_taken_back(lorry: Lorry, tmp_path: Path) -> None:
    before = await lorry.json("review", "ada")
    first, second, third = by_status(before, "kept")[:3]
    answer = tmp_path / "answer.txt"
    answer.write_text("Ahoy, I said it in other words.\n")
    both = tmp_path / "both.json"
    both.write_text(json.dumps({"question": "What do you say?", "completion": "Ahoy to that."}))
    after = await lorry.json(
        "review", "ada", "--drop", first["id"][:10], "--edit", f"{second['id']}={answer}",
        "--edit", f"{third['id']}={both}",
    )  # fmt: skip
    assert after["train"] == before["train"] - 1
    assert [pair["id"] for pair in by_status(after, "dropped")] == [first["id"]]
    edited = {pair["id"]: pair for pair in by_status(after, "edited")}
    assert edited[second["id"]]["completion"] == "Ahoy, I said it in other words."
    assert edited[second["id"]]["written"]["completion"] == second["completion"]
    assert edited[third["id"]]["question"] == "What do you say?"
    assert after["digest"] != before["digest"]
    trained = (Path(after["directory"]) / "examples" / "train.jsonl").read_text()
    assert "Ahoy to that." in trained
    shown = await lorry.json("review", "ada", "--show", second["id"])
    assert shown["decided"]["by"] == "lorry"
    await lorry.json("build-dataset", "ada", "--set", "dataset.max_held_out=5")
    later = await lorry.json("review", "ada", "--restore", second["id"], "--restore", third["id"])
    assert first["id"] not in {pair["id"] for pair in by_status(later, "kept")}
    assert not by_status(later, "edited")


async def test_a_secret_that_a_reviewer_types_is_in_no_file_of_the_dataset(lorry: Lorry, tmp_path: Path) -> None:
    pair = by_status(await lorry.json("review", "ada"), "kept")[0]
    answer = tmp_path / "answer.txt"
    answer.write_text("Write to me at grace.hopper@example.org")
    after = await lorry.json("review", "ada", "--edit", f"{pair['id']}={answer}")
    assert by_status(after, "edited")[0]["completion"] == "Write to me at [redacted email]"
    kept = "".join(path.read_text() for path in Path(after["directory"]).rglob("*.*"))
    assert "grace.hopper" not in kept
    built = await lorry.json("build-dataset", "ada")
    assert (built["digest"], built["redaction"]) == (after["digest"], {"email": 1})


async def test_what_cannot_be_decided_changes_nothing(lorry: Lorry, tmp_path: Path) -> None:
    before = await lorry.json("review", "ada", "--search", "AHOY")
    kept, held = by_status(before, "kept"), by_status(before, "held_out")[0]["id"]
    assert all("ahoy" in f"{pair['question']} {pair['completion']}".lower() for pair in before["pairs"])
    text = tmp_path / "text"
    text.write_text("something")
    everything = [
        argument for pair in (await lorry.json("review", "ada"))["pairs"] for argument in ("--drop", pair["id"])
    ]
    refused = [
        (("ada", "--drop", kept[0]["id"], "--edit", f"{held}={text}"), 2, "not edited"),
        (("ada", *everything), 2, "held-out replies"),
        (("ada", "--edit", f"{kept[0]['id']}={text}", "--edit", f"{kept[0]['id']}={text}"), 2, "given twice"),
        (("ada", "--kind", "question"), 2, "'question' is not one of"),
        (("nobody",), 3, "lorry build-dataset nobody"),
    ]
    for arguments, exit_code, reason in refused:
        code, told, complained = await lorry("review", *arguments)
        assert (code, told) == (exit_code, ""), complained
        assert reason in " ".join(complained.split())
    code, told, complained = await lorry("review", "ada", "--search", "ahoy", columns=80)
    assert code == 0, complained
    assert kept[0]["id"][:8] in told
    assert all(len(line) <= 80 for line in told.splitlines() if "│" in line)
    assert (await lorry.json("review", "ada"))["digest"] == before["digest"]


async def test_a_person_at_a_terminal_goes_through_the_pairs(
    lorry: Lorry, database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    before = await lorry.json("review", "ada")
    first, second = by_status(before, "kept")[:2]
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lorry.cli", "review", "ada"),
        env=os.environ | lorry.environment | {"TERM": "dumb"},
        stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.write(ours, b"d\nk\nb\ne\n\nIn my own words\nq\n")
    told, complained = await asyncio.wait_for(process.communicate(), 120)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, complained.decode()
    assert "1 edited, 1 dropped" in told.decode()
    after = await lorry.json("review", "ada")
    assert [pair["id"] for pair in by_status(after, "dropped")] == [first["id"]]
    assert [(pair["id"], pair["completion"]) for pair in by_status(after, "edited")] == [
        (second["id"], "In my own words")
    ]


async def test_what_cannot_be_decided_at_a_terminal_loses_nothing_that_was(
    lorry: Lorry, database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    held = by_status(await lorry.json("review", "ada"), "held_out")
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lorry.cli", "review", "ada", "--status", "held_out"),
        env=os.environ | lorry.environment | {"TERM": "dumb", "COLUMNS": "200"},
        stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    edit, drop_all = "e\n\nIn other words\n", "d\n" * len(held)
    think_again = "b\n" + "r\n" * (len(held) - 1) + "q\n"  # the last one stays dropped
    os.write(ours, (edit + drop_all + think_again).encode())
    told, complained = await asyncio.wait_for(process.communicate(), 120)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, complained.decode()
    for words in ("a held-out reply can be dropped, not edited", "0 held-out replies", "decided: drop"):
        assert words in complained.decode()
    assert f"1 dropped, {len(held) - 1} held out" in told.decode()
    dropped = by_status(await lorry.json("review", "ada"), "dropped")
    assert [pair["id"] for pair in dropped] == [held[-1]["id"]]


async def test_decisions_taken_at_once_are_all_kept_and_belong_to_one_user(database: Database) -> None:
    async def decide(number: int, user: str) -> None:
        decision = Curation().with_drop("x", by="ann").decisions["x"]
        async with database.transaction() as session:
            await CurationRepository(session).put(f"{number:016d}", decision, tenant="default", user=user)

    await asyncio.gather(*(decide(number, user) for number in range(10) for user in ("ann", "bob")))
    async with database.transaction() as session:
        repository = CurationRepository(session)
        assert len((await repository.get(tenant="default", user="ann")).decisions) == 10
        assert not (await repository.get(tenant="other", user="ann")).decisions
        assert await repository.remove(f"{3:016d}", tenant="default", user="ann")
        assert not await repository.remove(f"{3:016d}", tenant="default", user="ann")
        await repository.forget(tenant="default", user="ann")
        assert not (await repository.get(tenant="default", user="ann")).decisions
        assert len((await repository.get(tenant="default", user="bob")).decisions) == 10


async def test_decisions_about_an_erased_user_are_forgotten(database: Database) -> None:
    decision = Curation().with_drop("x").decisions["x"]
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", conversations(1))
        await CurationRepository(session).put("k" * 16, decision, tenant="default", user="ann")
        assert await CurationRepository(session).forget_erased() == 0
        await TranscriptStore(session).delete("default", "ann")
        assert await CurationRepository(session).forget_erased() == 1


async def test_an_edit_goes_with_the_transcript_it_is_about_and_a_drop_stays(database: Database) -> None:
    one, other = conversations(2)
    async with database.transaction() as session:
        store, repository = TranscriptStore(session), CurationRepository(session)
        await store.add("default", "ann", [one, other])
        for key, source in (("a" * 16, one), ("b" * 16, other)):
            decision = Decision(action="edit", completion="what she said", transcript_id=source.id)
            await repository.put(key, decision, tenant="default", user="ann")
        await repository.put("c" * 16, Decision(action="drop"), tenant="default", user="ann")
        assert await repository.forget_erased() == 0
        await store.delete("default", "ann", one.id)
        assert await repository.forget_erased() == 1
        assert set((await repository.get(tenant="default", user="ann")).decisions) == {"b" * 16, "c" * 16}


async def test_what_two_people_decide_at_once_stands_in_one_dataset(lorry: Lorry) -> None:
    kept = by_status(await lorry.json("review", "ada"), "kept")[:3]
    await asyncio.gather(*(lorry.json("review", "ada", "--drop", pair["id"]) for pair in kept))
    after = await lorry.json("review", "ada")
    assert {pair["id"] for pair in by_status(after, "dropped")} == {pair["id"] for pair in kept}
