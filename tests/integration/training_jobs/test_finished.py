"""What was trained is kept in the database until it is published: whole or not at all, and for nobody else."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from kit.database import Database
from tests.support.folders import found_under
from tests.support.steering import rows
from tests.support.training_jobs import Harbour, staying_at, talks, works
from training.jobs.assignment import Assignment
from training.jobs.errors import JobStopped, NothingToTrainOn
from training.jobs.finished import shelf
from training.jobs.finished.repository import FinishedRepository
from training.jobs.finished.shelf import Shelf
from training.jobs.job import Job, Submission
from training.jobs.jobs import Jobs
from training.jobs.record.repository import RecordRepository
from training.jobs.repository import JobRepository
from training.jobs.states import Stage, State
from training.jobs.worker import Worker
from training.jobs.workshop.examination import Examination
from training.runs import RECORD_FILE
from transcripts.store import TranscriptStore

Working = Callable[..., AbstractAsyncContextManager[Worker]]


async def held_job(database: Database) -> Assignment:
    """Return a job of ann's in the hands of the worker `one`."""
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", talks("ann", count=2))
    job = await Jobs(database).submit(Submission(tenant="default", user="ann", base="base"))
    async with database.transaction() as session:
        await JobRepository(session).hand_over(job.id)
    return await taken(database, job.id, by="one")


async def taken(database: Database, job_id: str, *, by: str) -> Assignment:
    async with database.transaction() as session:
        row = await JobRepository(session).take(job_id, run=1, worker_id=by)
        assert row is not None
        return Assignment.of(row)


def make_run(directory: Path, *, weights: bytes = bytes(range(256)) * 9, record: bytes = b'{"steps": 4}') -> Path:
    """Write files as a finished training has them."""
    (directory / "adapter").mkdir(parents=True)
    (directory / "adapter" / "adapter_model.safetensors").write_bytes(weights)
    (directory / "adapter" / "empty.json").write_bytes(b"")
    (directory / RECORD_FILE).write_bytes(record)
    return directory


def content(directory: Path) -> dict[str, bytes]:
    return {str(each.relative_to(directory)): each.read_bytes() for each in found_under(directory) if each.is_file()}


async def kept(database: Database, job_id: str) -> int:
    """Count the rows of what is kept of a job, parts included."""
    query = (
        "select (select count(*) from training_finished where job_id = :job)"
        " + (select count(*) from training_finished_part where job_id = :job)"
    )
    [(count,)] = await rows(database, query, job=job_id)
    return int(count)


async def harm_it(database: Database, statement: str) -> None:
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql(statement)


async def test_what_is_kept_comes_back_byte_for_byte_in_parts(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "_PART_BYTES", 1000)
    job = await held_job(database)
    made = make_run(tmp_path / "one")
    assert not await Shelf(database).restore(job, tmp_path / "two" / "run")
    await Shelf(database).keep(job, made)
    assert await kept(database, job.job_id) == 1 + 3 + 1
    assert await Shelf(database).restore(job, tmp_path / "two" / "run")
    assert content(tmp_path / "two" / "run") == content(made)
    assert [each.name for each in (tmp_path / "two").iterdir()] == ["run"]


async def test_what_is_kept_already_is_not_sent_again_and_another_training_takes_its_place(
    database: Database, tmp_path: Path
) -> None:
    job = await held_job(database)
    await Shelf(database).keep(job, make_run(tmp_path / "one"))
    [(before,)] = await rows(database, "select min(xmin::text::bigint) from training_finished_part")
    await Shelf(database).keep(job, tmp_path / "one")
    assert await rows(database, "select min(xmin::text::bigint) from training_finished_part") == [(before,)]
    await Shelf(database).keep(job, make_run(tmp_path / "again", weights=b"w", record=b'{"steps": 5}'))
    assert await Shelf(database).restore(job, tmp_path / "run")
    assert content(tmp_path / "run") == content(tmp_path / "again")


@pytest.mark.parametrize(
    "harm",
    [
        "update training_finished_part set data = set_byte(data, 0, 1) where number = 2",
        "delete from training_finished_part where number = 2",
        "delete from training_finished_part",
        "update training_finished set files = null",
    ],
    ids=["bit", "part", "parts", "unfinished"],
)
async def test_what_is_not_there_whole_is_not_restored(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(shelf, "_PART_BYTES", 1000)
    job = await held_job(database)
    await Shelf(database).keep(job, make_run(tmp_path / "one"))
    await harm_it(database, harm)
    assert not await Shelf(database).restore(job, tmp_path / "two" / "run")
    assert found_under(tmp_path / "two") == []


async def test_a_worker_that_lost_the_job_changes_nothing_of_what_the_next_one_keeps(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not when it loses it between two parts, of which the next one has the same."""
    monkeypatch.setattr(shelf, "_PART_BYTES", 1000)
    lost = await held_job(database)
    theirs = make_run(tmp_path / "theirs", weights=b"t" * 2500, record=b'{"steps": 5}')
    add_part, holders = FinishedRepository.add_part, []

    async def lose(self: FinishedRepository, job_id: str, file: str, number: int, data: bytes) -> None:
        if not holders and number == 1:
            holders.append(await taken(database, job_id, by="two"))
            await Shelf(database).keep(holders[0], theirs)
        await add_part(self, job_id, file, number, data)

    monkeypatch.setattr(FinishedRepository, "add_part", lose)
    with pytest.raises(JobStopped):
        await Shelf(database).keep(lost, make_run(tmp_path / "ours", weights=b"o" * 2500))
    with pytest.raises(JobStopped):
        await Shelf(database).keep(lost, tmp_path / "ours")
    assert await Shelf(database).restore(holders[0], tmp_path / "run")
    assert content(tmp_path / "run") == content(theirs)


async def test_a_worker_whose_job_is_gone_meanwhile_is_told_so(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "_PART_BYTES", 1000)
    job = await held_job(database)
    add_part = FinishedRepository.add_part

    async def lose(self: FinishedRepository, job_id: str, file: str, number: int, data: bytes) -> None:
        if number == 1:
            await harm_it(database, "delete from training_job")
        await add_part(self, job_id, file, number, data)

    monkeypatch.setattr(FinishedRepository, "add_part", lose)
    with pytest.raises(JobStopped):
        await Shelf(database).keep(job, make_run(tmp_path / "ours"))
    assert await kept(database, job.job_id) == 0


async def test_a_large_adapter_is_never_in_memory_whole(database: Database, tmp_path: Path) -> None:
    job = await held_job(database)
    size = 32 << 20
    made = make_run(tmp_path / "one", weights=bytes(size))
    tracemalloc.start()
    try:
        await Shelf(database).keep(job, made)
        assert await Shelf(database).restore(job, tmp_path / "run")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 2


async def failed_after_training(harbour: Harbour, working: Working, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Return a job that was trained and could not be evaluated."""

    async def fail(*_: object) -> None:
        raise NothingToTrainOn("this one cannot be evaluated")

    await harbour.add_user("ann")
    with monkeypatch.context() as patch:
        patch.setattr(Examination, "evaluate", fail)
        async with working():
            return await harbour.until((await harbour.submit("ann")).id)


async def test_a_failed_job_is_gone_on_with_elsewhere_without_another_training_and_leaves_nothing(
    harbour: Harbour, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await failed_after_training(harbour, working, monkeypatch)
    assert job.state is State.FAILED
    assert await kept(harbour.database, job.id) > 1
    before = await tokens_and_seconds(harbour, job.id)
    shutil.rmtree(harbour.directory / "training")
    await harbour.jobs.retry(job.id)
    assert await kept(harbour.database, job.id) > 1
    async with working("two", LORRY_TRAINING_DIRECTORY=str(harbour.directory / "elsewhere")):
        ended = await harbour.until(job.id)
        assert ended.state in {State.SUCCEEDED, State.REJECTED}, ended.error
        assert (await harbour.kinds(job.id)).count("stage began train") == 1

        async def nothing() -> bool:
            return await kept(harbour.database, job.id) == 0

        await harbour.until_true(nothing, what="nothing kept")
    assert await tokens_and_seconds(harbour, job.id) == before


@pytest.mark.parametrize("days", ["7", "0.000001"], ids=["lately", "long ago"])
async def test_what_a_failed_job_has_trained_goes_when_its_days_are_over(
    harbour: Harbour, working: Working, monkeypatch: pytest.MonkeyPatch, days: str
) -> None:
    monkeypatch.setitem(harbour.changes, "LORRY_TRAINING_UPKEEP_SECONDS", "3600")
    job = await failed_after_training(harbour, working, monkeypatch)
    other = await harbour.submit("ann")
    await harbour.jobs.cancel(other.id)
    async with harbour.database.transaction() as session:  # swept in the same pass, as every canceled job
        await FinishedRepository(session).begin(other.id)
    harbour.changes |= {"LORRY_TRAINING_FAILED_DAYS": days}
    async with working() as worker:
        await harbour.until_true(lambda: works(worker), what="a worker")
        await worker._upkeep.sweep()
        assert await kept(harbour.database, other.id) == 0
    assert (await kept(harbour.database, job.id) > 1) == (days == "7")


@pytest.mark.parametrize(
    ("state", "error", "goes_on"),
    [
        (State.CANCELED, None, False),
        (State.REJECTED, None, False),
        (State.FAILED, {"field": "start"}, False),
        (State.FAILED, {"field": "user_id"}, True),
    ],
)
async def test_a_job_that_begins_anew_finds_nothing_of_what_it_trained_before(
    database: Database, tmp_path: Path, state: State, error: dict[str, str] | None, goes_on: bool
) -> None:
    job = await held_job(database)
    await Shelf(database).keep(job, make_run(tmp_path / "one"))
    async with database.transaction() as session:
        repository = JobRepository(session)
        await RecordRepository(session).add_stage(job.job_id, Stage.SNAPSHOT, result={}, seconds=1.0)
        ended = {"state": state, "error": error, "ended_at": await repository.now()}
        await repository.update(job.job_id, ended)
    await Jobs(database).retry(job.job_id)
    assert (await kept(database, job.job_id) > 0) == goes_on


@pytest.mark.parametrize("lost_with", ["the disk", "the checkpoint"])
async def test_what_a_training_took_that_begins_anew_counts_beside_what_it_takes_again(
    harbour: Harbour, working: Working, lost_with: str
) -> None:
    await harbour.add_user("ann")
    async with working():
        with staying_at("ann", step=20):
            job = await harbour.submit("ann", steps=60)
            await harbour.until_true(lambda: harbour.has_checkpoint(job.id), what="a checkpoint", every=0.01)
            await harbour.jobs.pause(job.id)
            await harbour.until(job.id, State.PAUSED)
    _, lost = await tokens_and_seconds(harbour, job.id)
    assert lost > 0
    if lost_with == "the disk":
        shutil.rmtree(harbour.directory / "training")
    else:
        for each in found_under(harbour.directory / "training"):
            if each.is_file() and "checkpoints" in each.parts:
                each.write_bytes(b"damaged")
    await harbour.jobs.resume(job.id)
    async with working("two"):
        ended = await harbour.until(job.id)
    assert ended.state in {State.SUCCEEDED, State.REJECTED}, ended.error
    [(seconds,)] = await rows(
        harbour.database,
        "select device_seconds from training_cost"
        " where job_id = :job and kind = 'train' and not is_estimate and earlier_run = 0",
        job=job.id,
    )
    _, together = await tokens_and_seconds(harbour, job.id)
    assert together == pytest.approx(lost + seconds)


async def tokens_and_seconds(harbour: Harbour, job_id: str) -> tuple[float, float]:
    """Return what the job's trainings took: tokens, and seconds of the device."""
    found = await harbour.costs.sums(job_id=job_id, by="kind")
    [spent] = [each for each in found if each["of"] == "train" and not each["is_estimate"]]
    return spent["trained_tokens"], spent["device_seconds"]
