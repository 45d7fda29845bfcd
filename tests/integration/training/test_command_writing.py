"""Having questions written from a folder of one's own, as the command does: gone on with, cleaned up after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lorry.stages.writing import write_questions
from tests.support.claude_server import ClaudeServer, Failure
from tests.support.registry_server import serving
from tests.support.writers import conversations, settings
from training.config import DatasetConfig
from training.errors import WriterFailed, WriterUnavailable
from training.writers.settings import WriterSettings
from training.writers.writer import Written

CONFIG = DatasetConfig(writer="claude", pairs=200)
KEPT = conversations()


@pytest.fixture
def claude() -> ClaudeServer:
    return ClaudeServer()


@pytest.fixture
async def at(claude: ClaudeServer) -> AsyncIterator[WriterSettings]:
    async with serving(claude.app()) as url:
        yield settings(url, writer_attempts=1)


async def write(at: WriterSettings, folder: Path) -> Written:
    return await write_questions(KEPT, settings=at, config=CONFIG, folder=folder)


async def test_what_was_written_is_reused_and_nothing_is_left_at_the_service(
    claude: ClaudeServer, at: WriterSettings, tmp_path: Path
) -> None:
    written = await write(at, tmp_path)
    asked = sum(claude.calls.values())
    assert await write(at, tmp_path) == written
    assert sum(claude.calls.values()) == asked
    assert not claude.batches
    assert not list(tmp_path.rglob("answers"))


@pytest.mark.parametrize("route", ["create", "list", "retrieve", "results", "delete"])
async def test_a_command_that_broke_off_anywhere_goes_on_without_paying_twice(
    claude: ClaudeServer, at: WriterSettings, tmp_path: Path, route: str
) -> None:
    claude.fail(route, *[Failure(status=503)] * 2)  # type: ignore[arg-type]
    for _ in range(4):
        try:
            written = await write(at, tmp_path)
            break
        except WriterUnavailable:
            continue
    assert written.examples
    assert set(claude.paid.values()) == {1}
    assert not claude.batches


async def test_a_writing_that_failed_is_cleaned_up_and_begun_anew(
    claude: ClaudeServer, at: WriterSettings, tmp_path: Path
) -> None:
    claude.outcome = lambda name, asked: "refused"
    with pytest.raises(WriterFailed):
        await write(at, tmp_path)
    assert not claude.batches
    claude.outcome = lambda name, asked: "succeeded"
    assert (await write(at, tmp_path)).examples


async def test_two_commands_that_want_the_same_pay_once(
    claude: ClaudeServer, at: WriterSettings, tmp_path: Path
) -> None:
    first, second = await asyncio.gather(write(at, tmp_path), write(at, tmp_path))
    assert first == second
    assert set(claude.paid.values()) == {1}
    assert not claude.batches


async def test_what_others_claim_is_asked_anew_before_each_submission(
    claude: ClaudeServer, at: WriterSettings, tmp_path: Path
) -> None:
    asked: list[Path] = []

    async def claimed(place: Path) -> set[str]:
        asked.append(place)
        return {"somebody's"}

    claude.fail("create", Failure(status=529))
    with pytest.raises(WriterUnavailable):
        await write_questions(KEPT, settings=at, config=CONFIG, folder=tmp_path, claimed=claimed)
    before = len(asked)
    assert (await write_questions(KEPT, settings=at, config=CONFIG, folder=tmp_path, claimed=claimed)).examples
    assert len(asked) >= before + 2, "at the beginning, and when it submits"
    assert {place.parent for place in asked} == {tmp_path}
