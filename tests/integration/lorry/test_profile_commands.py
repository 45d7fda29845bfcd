"""`lorry profile` and `lorry bank` as processes: reading, correcting, comparing, asking otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.database import Database
from kit.settings import DatabaseSettings
from serving.extraction.bank import standard_bank
from serving.extraction.profile import compare_profiles
from serving.extraction.profile.fact_id import fact_id
from serving.extraction.render import write_profile
from serving.extraction.repository import ProfileRepository
from tests.support.command import Lorry
from tests.support.extraction import said
from tests.support.nursery import Nursery
from tests.support.profiles import a_statement, profile_of
from tests.support.registry_server import registry_settings, registry_url
from transcripts.store import TranscriptStore

__all__ = ["registry_settings", "registry_url"]
TEA, JAZZ = "I love green tea", "I love jazz"
BANK = """
name: acme.bank
version: "1"
extends: lorry.standard
topics:
  - topic: tools
    title: Tools
    cues: [hammer]
    questions:
      - id: tools.own
        paraphrases: ["Which tools do you use?", "What is in your toolbox?"]
        answer_schema: {type: string}
"""


@pytest.fixture
def lorry(nursery: Nursery, registry_url: str, database_settings: DatabaseSettings, tmp_path: Path) -> Lorry:
    return Lorry(
        nursery, registry_url=registry_url, database_url=database_settings.database_url, home=tmp_path / "home"
    )


@pytest.fixture
async def directory(database: Database, tmp_path: Path) -> Path:
    """The files of ann's profile, who loves green tea and jazz."""
    transcripts = [said(TEA), said(JAZZ)]
    profile = profile_of(
        a_statement(TEA, (TEA, transcripts[0].id), confidence=0.9), a_statement(JAZZ, (JAZZ, transcripts[1].id))
    )
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", transcripts)
        await ProfileRepository(session).add("default", profile, difference=compare_profiles(None, profile))
    return write_profile(profile, tmp_path / "home" / "profiles" / "default" / "ann")


async def test_a_fact_is_corrected_confirmed_forbidden_and_the_files_follow(lorry: Lorry, directory: Path) -> None:
    code, told, complained = await lorry("profile", "ann", "--correct", TEA, "--to", "Drinks matcha", "--by", "bob")
    assert (code, told) == (0, f"corrected (correction 1); before: {TEA}\n"), complained
    code, told, _ = await lorry("profile", "ann", "--forbid", fact_id(JAZZ))
    assert (code, told) == (0, f"forbidden, in whatever words: {JAZZ} (correction 2)\n")
    page = (directory / "USER_PROFILE.md").read_text()
    assert "**Drinks matcha** (edited by bob on " in page
    assert "jazz" not in page + (directory / "facts.jsonl").read_text()
    code, told, _ = await lorry("profile", "ann", "--format", "context", "--budget", "80")
    assert (code, "- Drinks matcha [interests, edited]" in told) == (0, True), told
    code, told, _ = await lorry("profile", "ann", "--withdraw", "2", "--format", "json")
    assert json.loads(told) == {"id": 2, "kind": "withdraw", "text": "", "withdrawn_by": "lorry", "user": "ann"}
    assert JAZZ in (directory / "USER_PROFILE.md").read_text()
    code, told, _ = await lorry("profile", "ann", "--corrections", "--format", "json")
    listed = [(each["kind"], each["made_by"], each["withdrawn_by"]) for each in json.loads(told)]
    assert listed == [("edit", "bob", None), ("forbid", "lorry", "lorry")]
    code, told, _ = await lorry("profile", "ann", "--confirm", JAZZ)
    assert told == f"confirmed: {JAZZ} (correction 3)\n"
    code, told, _ = await lorry("profile", "ann", "--difference")
    assert told.splitlines()[:2] == ["This is the first profile.", f"+ {JAZZ} (interests)"]
    assert TEA not in told, "what was edited is not repeated in its old words"


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("--confirm", "I love skydiving"), 3, "states no fact"),
        (("--withdraw", "9"), 3, "no correction 9"),
        (("--correct", TEA), 2, "go together"),
        (("--correct", TEA, "--to", "a\nb"), 2, "one line"),
        (("--forbid", "I am"), 2, "no word in it"),
        (("--forbid", TEA, "--corrections"), 2, "one at a time"),
        (("--budget", "100"), 2, "--format context"),
        (("--format", "context", "--budget", "63"), 2, "64"),
    ],
)
async def test_what_cannot_be_done_is_refused_with_the_reason(
    lorry: Lorry, directory: Path, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    before = (directory / "profile.json").read_bytes()
    ended, told, complained = await lorry("profile", "ann", *arguments)
    assert (ended, told) == (code, ""), complained
    assert complaint in " ".join(complained.replace("│", " ").split())
    assert (directory / "profile.json").read_bytes() == before


async def test_a_bank_is_checked_set_shown_and_given_up(lorry: Lorry, tmp_path: Path) -> None:
    own, bad = tmp_path / "bank.yaml", tmp_path / "bad.yaml"
    own.write_text(BANK)
    bad.write_text(BANK.replace("cues", "clues"))
    code, told, complained = await lorry("bank", "check", str(bad))
    assert (code, told, "topics.0.clues" in complained) == (2, "", True), complained
    assert (await lorry("bank", "check", str(own)))[0] == 0
    assert (await lorry.json("bank", "show"))["name"] == "lorry.standard"
    code, told, complained = await lorry("bank", "set", str(own), "--by", "bob")
    topics = len(standard_bank().topics) + 1
    version = f"1+lorry.standard.{standard_bank().version}"
    wanted = f"revision 1: acme.bank {version}, {topics} topics, asked from the next extraction on\n"
    assert (code, told) == (0, wanted), complained
    assert (await lorry("bank", "show", "--source"))[1] == BANK
    assert (await lorry.json("bank", "set", "--standard"))["revision"] == 2
    assert (await lorry.json("bank", "show"))["name"] == "lorry.standard"
    assert [each["made_by"] for each in await lorry.json("bank", "show", "--revisions")] == ["lorry", "bob"]
    assert (await lorry("bank", "set"))[0] == 2
    assert (await lorry("bank", "check", str(tmp_path / "none.yaml")))[0] == 2
