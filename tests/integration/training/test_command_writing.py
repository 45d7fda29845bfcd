"""Having questions written from a folder of one's own, as the command does: gone on with, cleaned up after, paid."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from kit.database import Database
from lorry.stages.bills import WritingBill
from lorry.stages.writing import Billed, Claimed, nobodys, write_questions
from tests.support.claude_server import ClaudeServer, Failure
from tests.support.registry_server import serving
from tests.support.writers import conversations, settings
from training.config import DatasetConfig
from training.errors import WriterError, WriterFailed, WriterUnavailable
from training.jobs.costs.costs import Costs
from training.jobs.costs.repository import CostRepository
from training.jobs.dispatch import Quota
from training.jobs.errors import QuotaExhausted
from training.jobs.quotas.quotas import Quotas
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


@pytest.fixture
def billed(database: Database) -> Billed:
    return partial(WritingBill, database=database, tenant="default", user="ada")


async def write(at: WriterSettings, folder: Path, billed: Billed, *, claimed: Claimed = nobodys) -> Written:
    return await write_questions(KEPT, settings=at, config=CONFIG, folder=folder, billed=billed, claimed=claimed)


async def dollars(database: Database, *, estimated: bool) -> list[float]:
    """Return what each bill comes to."""
    sums = await Costs(database).sums(tenant="default", by="job_id")
    return [each["dollars"] for each in sums if each["is_estimate"] is estimated]


async def promised(database: Database) -> float:
    async with database.reading() as session:
        return await CostRepository(session).promised_dollars("default", except_job="another")


async def test_what_was_written_is_reused_and_nothing_is_left_at_the_service(
    claude: ClaudeServer, at: WriterSettings, billed: Billed, database: Database, tmp_path: Path
) -> None:
    written = await write(at, tmp_path, billed)
    asked = sum(claude.calls.values())
    assert await write(at, tmp_path, billed) == written
    assert sum(claude.calls.values()) == asked
    assert not claude.batches
    assert not list(tmp_path.rglob("answers"))
    assert await dollars(database, estimated=False) == [written.cost.dollars]
    (estimate,) = await dollars(database, estimated=True)
    assert estimate > 0
    assert await promised(database) == 0


@pytest.mark.parametrize("route", ["create", "list", "retrieve", "results", "delete"])
async def test_a_command_that_broke_off_anywhere_goes_on_without_paying_twice(
    claude: ClaudeServer, at: WriterSettings, billed: Billed, database: Database, tmp_path: Path, route: str
) -> None:
    claude.fail(route, *[Failure(status=503)] * 2)  # type: ignore[arg-type]
    for _ in range(4):
        try:
            written = await write(at, tmp_path, billed)
            break
        except WriterUnavailable:
            continue
    assert written.examples
    assert set(claude.paid.values()) == {1}
    assert not claude.batches
    assert await dollars(database, estimated=False) == [written.cost.dollars], "on one bill, and once"
    assert len(await dollars(database, estimated=True)) == 1
    assert await promised(database) == 0


async def test_a_writing_that_failed_is_cleaned_up_and_begun_anew(
    claude: ClaudeServer, at: WriterSettings, billed: Billed, database: Database, tmp_path: Path
) -> None:
    claude.outcome = lambda name, asked: "refused"
    with pytest.raises(WriterFailed):
        await write(at, tmp_path, billed)
    assert not claude.batches
    (lost,) = await dollars(database, estimated=False)
    assert await promised(database) == 0
    claude.outcome = lambda name, asked: "succeeded"
    written = await write(at, tmp_path, billed)
    assert written.examples
    assert sorted(await dollars(database, estimated=False)) == sorted([lost, written.cost.dollars])


async def test_two_commands_that_want_the_same_pay_once(
    claude: ClaudeServer, at: WriterSettings, billed: Billed, database: Database, tmp_path: Path
) -> None:
    first, second = await asyncio.gather(write(at, tmp_path, billed), write(at, tmp_path, billed))
    assert first == second
    assert set(claude.paid.values()) == {1}
    assert not claude.batches
    assert await dollars(database, estimated=False) == [first.cost.dollars]


async def test_what_others_claim_is_asked_anew_before_each_submission(
    claude: ClaudeServer, at: WriterSettings, billed: Billed, database: Database, tmp_path: Path
) -> None:
    asked: list[Path] = []

    async def claimed(place: Path) -> set[str]:
        asked.append(place)
        return {"somebody's"}

    claude.fail("create", Failure(status=529))
    with pytest.raises(WriterUnavailable):
        await write(at, tmp_path, billed, claimed=claimed)
    before = len(asked)
    assert (await write(at, tmp_path, billed, claimed=claimed)).examples
    assert len(asked) >= before + 2, "at the beginning, and when it submits"
    assert {place.parent for place in asked} == {tmp_path}


async def test_what_the_month_does_not_pay_for_is_not_bought(
    claude: ClaudeServer, at: WriterSettings, billed: Billed, database: Database, tmp_path: Path
) -> None:
    await Quotas(database).put("default", Quota(max_monthly_dollars=1e-6))
    with pytest.raises(QuotaExhausted, match="writing would cost about"):
        await write(at, tmp_path, billed)
    assert not claude.paid
    assert await dollars(database, estimated=True) == [], "what was not begun promises nothing"
    await Quotas(database).put("default", Quota(max_monthly_dollars=100.0))
    assert (await write(at, tmp_path, billed)).examples


async def test_writings_that_run_at_once_share_what_is_left_of_the_month(
    claude: ClaudeServer, at: WriterSettings, billed: Billed, database: Database, tmp_path: Path
) -> None:
    """Of one that was broken off, whose batch is at the service, the rest of its estimate is not left any more."""
    claude.fail("retrieve", Failure(status=503))
    with pytest.raises(WriterUnavailable):
        await write(at, tmp_path / "one", billed)
    (estimate,), (spent,) = [await dollars(database, estimated=estimated) for estimated in (True, False)]
    assert await promised(database) == pytest.approx(estimate - spent)
    await Quotas(database).put("default", Quota(max_monthly_dollars=1.5 * estimate))
    with pytest.raises(QuotaExhausted, match="promised to writings that run"):
        await write(at, tmp_path / "two", billed)
    written = await write(at, tmp_path / "one", billed)
    assert await dollars(database, estimated=False) == [written.cost.dollars]
    assert await promised(database) == 0


@pytest.mark.parametrize("status", [503, 400])
async def test_what_could_not_be_begun_promises_nothing(
    claude: ClaudeServer, at: WriterSettings, billed: Billed, database: Database, tmp_path: Path, status: int
) -> None:
    claude.fail("ask", Failure(status=status))
    with pytest.raises(WriterError):
        await write(at, tmp_path, billed)
    assert await dollars(database, estimated=True) == []
    written = await write(at, tmp_path, billed)
    assert await dollars(database, estimated=False) == [written.cost.dollars]


async def test_samples_that_were_of_no_use_are_on_the_bill(
    claude: ClaudeServer, at: WriterSettings, billed: Billed, database: Database, tmp_path: Path
) -> None:
    claude.answer = lambda params: json.dumps({"pairs": []})
    spent: list[float] = []
    for _ in range(2):
        with pytest.raises(WriterFailed):
            await write(at, tmp_path, billed)
        spent.append(sum(await dollars(database, estimated=False)))
    assert spent == [pytest.approx(spent[0]), pytest.approx(2 * spent[0])]
    assert spent[0] > 0
    assert await promised(database) == 0
