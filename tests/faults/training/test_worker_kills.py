"""Workers are killed with SIGKILL in every stage; others, or they themselves, go on."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from registry.client import RegistryClient
from registry.manifest import Owner
from tests.support.folders import found_under
from tests.support.registry_server import TOKEN
from tests.support.training_jobs import Harbour
from tests.support.waiting import until
from training.jobs.states import STAGES, Stage, State
from training.runs import RECORD_FILE

pytestmark = pytest.mark.faults
ENDED_WELL = {State.SUCCEEDED, State.REJECTED}


class Holding:
    """Holds back the row that says a stage is done: whoever writes it waits, as long as this connection lasts."""

    _LOCK = 4242

    def __init__(self, server: asyncpg.Connection) -> None:
        self._server = server

    async def begin(self) -> None:
        """Put the watch at the table; it lets everything pass."""
        await self._server.execute("select pg_advisory_lock($1)", self._LOCK)
        await self.hold_back(None)
        await self._server.execute(
            "create trigger held_back before insert on training_stage for each row execute function hold_back()"
        )

    async def hold_back(self, stage: Stage | None) -> None:
        """Hold back this stage and no other."""
        await self._server.execute(
            "create or replace function hold_back() returns trigger language plpgsql as $$ begin "
            f"if new.stage = '{stage or ''}' then perform pg_advisory_xact_lock({self._LOCK}); end if; "
            "return new; end $$"
        )

    async def is_held_back(self) -> bool:
        """Whether a worker waits."""
        return bool(await self._waiting())

    async def forget_the_dead(self) -> None:
        """End what a worker that was killed left with the server, as the server does once it hears of it."""

        async def nobody_is_busy() -> bool:
            for pid in await self._waiting():
                await self._server.execute("select pg_terminate_backend($1)", pid)
            query = (
                "select count(*) from pg_stat_activity where datname = current_database() "
                "and backend_type = 'client backend' and state <> 'idle' and pid <> pg_backend_pid()"
            )
            return bool(await self._server.fetchval(query) == 0)

        await until(nobody_is_busy)

    async def end(self) -> None:
        """Let everything pass again."""
        await self._server.execute("select pg_advisory_unlock($1)", self._LOCK)
        await self._server.execute("drop function hold_back() cascade")
        await self._server.close()

    async def _waiting(self) -> list[int]:
        query = "select pid from pg_locks where locktype = 'advisory' and objid = $1 and not granted"
        return [row["pid"] for row in await self._server.fetch(query, self._LOCK)]


@asynccontextmanager
async def holding(harbour: Harbour) -> AsyncIterator[Holding]:
    held = Holding(await asyncpg.connect(harbour.database_settings.database_url.replace("+asyncpg", "")))
    await held.begin()
    try:
        yield held
    finally:
        await held.end()


async def versions(harbour: Harbour, user: str) -> int:
    async with RegistryClient(url=harbour.registry_url, token=TOKEN) as registry:
        return len(await registry.list_versions(Owner(tenant="default", user=user), "profile"))


async def test_a_worker_killed_as_a_stage_begins_and_before_its_end_is_written_down_goes_on_where_it_was(
    harbour: Harbour,
) -> None:
    """Two lives a stage; none gets further than it should, since the database holds back the end of that stage."""
    await harbour.add_user("ann")
    job = await harbour.submit("ann", steps=400)
    runs: list[tuple[int, int]] = []
    async with holding(harbour) as held:
        for stage in (each for stages in STAGES.values() for each in stages):
            await held.hold_back(stage)
            after = len(await harbour.jobs.events(job.id))
            harbour.start("one")
            if stage is Stage.TRAIN:
                await harbour.until_true(lambda: harbour.has_checkpoint(job.id), what="a checkpoint", every=0.01)
            else:
                began = partial(_began, harbour, job.id, stage, after)
                await harbour.until_true(began, what=f"{stage} begun", every=0.01)
            harbour.kill("one")
            await held.forget_the_dead()
            harbour.start("one")
            await harbour.until_true(held.is_held_back, what=f"{stage} done, and not written down")
            harbour.kill("one")
            await held.forget_the_dead()
            assert f"stage finished {stage}" not in await harbour.kinds(job.id)
            for record in _records_of(harbour, job.id):
                runs.append((record.stat().st_ino, record.stat().st_mtime_ns))
    [record] = _records_of(harbour, job.id)
    assert json.loads(record.read_bytes())["resumed_from"] >= 1, "it went on from the dead worker's checkpoint"
    assert len(runs) == 3, "there from the training's end on"
    assert len(set(runs)) == 1, "and not trained again"
    harbour.start("one")
    ended = await harbour.until(job.id)
    assert ended.state in ENDED_WELL, ended.error
    kinds = await harbour.kinds(job.id)
    for stage in (each for stages in STAGES.values() for each in stages):
        assert kinds.count(f"stage finished {stage}") == 1, kinds
    assert await versions(harbour, "ann") == 1
    await harbour.until_true(lambda: _nothing_of(harbour, job.id), what="an empty folder")


async def test_a_worker_killed_at_any_moment_trains_and_publishes_once_and_tidies_up(harbour: Harbour) -> None:
    """Each life is a little longer than the one before, and ends wherever it is."""
    await harbour.add_user("ann")
    harbour.changes["LORRY_TRAINING_CRASHES"] = "100"
    job = await harbour.submit("ann", steps=120)
    for life in range(30):
        taken = (await harbour.kinds(job.id)).count("taken")
        harbour.start("one")
        if life < 3:  # however long that takes: these die with the job in hand
            await harbour.until_true(partial(_taken, harbour, job.id, taken + 1), what="the job taken", every=0.01)
        else:
            await asyncio.sleep(0.5 * 1.25**life)
        harbour.kill("one")
        if (await harbour.jobs.get(job.id)).ended:
            break
    ended = await harbour.jobs.get(job.id)
    assert ended.state in ENDED_WELL, ended.error
    kinds = await harbour.kinds(job.id)
    assert sum(each.startswith("worker died") for each in kinds) >= 3, kinds
    for stage in (each for stages in STAGES.values() for each in stages):
        assert kinds.count(f"stage finished {stage}") == 1, kinds
    assert await versions(harbour, "ann") == 1
    harbour.start("one")
    await harbour.until_true(lambda: _nothing_of(harbour, job.id), what="an empty folder")


async def test_the_work_of_a_worker_that_never_comes_back_is_adopted_by_another(harbour: Harbour) -> None:
    await harbour.add_user("ann")
    job = await harbour.submit("ann", steps=80)
    async with holding(harbour) as held:
        await held.hold_back(Stage.TRAIN)
        harbour.start("one")
        await harbour.until_event(job.id, "stage began", stage="train")
        harbour.kill("one")
        await held.forget_the_dead()
    harbour.start("two", LORRY_TRAINING_DIRECTORY=str(harbour.directory / "elsewhere"))  # a machine without its disk
    ended = await harbour.until(job.id)
    assert ended.state in ENDED_WELL, ended.error
    assert any(each.kind == "worker died" for each in await harbour.jobs.events(job.id))
    taken = [each.detail["worker_id"] for each in await harbour.jobs.events(job.id) if each.kind == "taken"]
    assert (taken[0], taken[-1]) == ("one", "two")
    assert await versions(harbour, "ann") == 1
    assert {each["worker_id"]: each["state"] for each in await harbour.fleet.workers()}["one"] == "lapsed"


async def test_what_was_trained_is_published_by_others_when_its_worker_and_its_disk_are_gone(harbour: Harbour) -> None:
    """Two are lost with their disks: one before it can say that the training is done, one before the version is out."""
    await harbour.add_user("ann")
    job = await harbour.submit("ann", steps=8)
    records: list[bytes] = []
    async with holding(harbour) as held:
        for worker, stage in (("one", Stage.TRAIN), ("two", Stage.EVALUATE)):
            disk = harbour.directory / worker
            await held.hold_back(stage)
            harbour.start(worker, LORRY_TRAINING_DIRECTORY=str(disk))
            await harbour.until_true(held.is_held_back, what=f"{stage} done, and not written down")
            harbour.kill(worker)
            await held.forget_the_dead()
            [record] = [each for each in found_under(disk / "jobs") if each.name == RECORD_FILE]
            records.append(record.read_bytes())
            shutil.rmtree(disk)
        await held.hold_back(None)
        harbour.start("three", LORRY_TRAINING_DIRECTORY=str(harbour.directory / "three"))
        ended = await harbour.until(job.id)
    assert ended.state in ENDED_WELL, ended.error
    assert len(set(records)) == 1, "it was trained once: the record counts its seconds"
    async with RegistryClient(url=harbour.registry_url, token=TOKEN) as registry:
        [version] = await registry.list_versions(Owner(tenant="default", user="ann"), "profile")
        lineage = (await registry.get_version(version.version_id)).manifest.lineage
    assert lineage.trained_at == datetime.fromisoformat(json.loads(records[0])["finished_at"])
    taken = [each.detail["worker_id"] for each in await harbour.jobs.events(job.id) if each.kind == "taken"]
    assert list(dict.fromkeys(taken)) == ["one", "two", "three"]


async def test_a_worker_that_comes_back_after_its_work_was_adopted_lets_go_of_it(harbour: Harbour) -> None:
    await harbour.add_user("ann")
    job = await harbour.submit("ann", steps=80)
    async with holding(harbour) as held:
        await held.hold_back(Stage.TRAIN)
        frozen = harbour.start("one")
        await harbour.until_event(job.id, "stage began", stage="train")
        frozen.send_signal(signal.SIGSTOP)  # as a machine that sleeps, or a network that is cut
    harbour.start("two", LORRY_TRAINING_DIRECTORY=str(harbour.directory / "elsewhere"))
    await harbour.until_event(job.id, "worker died")
    frozen.send_signal(signal.SIGCONT)
    ended = await harbour.until(job.id)
    assert ended.state in ENDED_WELL, ended.error
    assert (await harbour.kinds(job.id)).count("stage finished train") == 1
    assert await versions(harbour, "ann") == 1
    assert frozen.poll() is None


async def test_a_worker_whose_id_another_process_has_taken_leaves_that_one_its_jobs(harbour: Harbour) -> None:
    """A machine that was cut off comes back when its place was filled: whoever has the id now goes on undisturbed."""
    await harbour.add_user("ann")
    job = await harbour.submit("ann", steps=100_000)
    frozen = harbour.start("one")
    await harbour.until_true(lambda: _steps_done(harbour, job.id, 1), what="a step")
    frozen.send_signal(signal.SIGSTOP)
    try:
        harbour.start("one", LORRY_TRAINING_DIRECTORY=str(harbour.directory / "elsewhere"))
        began = len(await harbour.jobs.events(job.id))
        await harbour.until_true(lambda: _training_again(harbour, job.id, began), what="train")
    finally:
        frozen.send_signal(signal.SIGCONT)
    assert await asyncio.to_thread(frozen.wait, 120) is not None, "it stops by itself"
    row = await harbour.jobs.get(job.id)
    assert (row.state, row.worker_id) == (State.RUNNING, "one")
    done = (row.progress or {}).get("done", 0)
    await harbour.until_true(lambda: _steps_done(harbour, job.id, done + 2), what="two more steps")
    await harbour.jobs.cancel(job.id)
    assert (await harbour.until(job.id)).state is State.CANCELED


async def test_a_user_under_whom_workers_die_is_given_up_and_blocks_nobody(harbour: Harbour) -> None:
    await harbour.add_user("poison")
    await harbour.add_user("bob")
    poison = await harbour.submit("poison", steps=5000, priority=10)
    harbour.changes["LORRY_TRAINING_CRASHES"] = "2"
    for _ in range(2):
        harbour.start("one")
        began = len(await harbour.jobs.events(poison.id))
        await harbour.until_true(lambda began=began: _training_again(harbour, poison.id, began), what="train")
        harbour.kill("one")
    bob = await harbour.submit("bob")
    harbour.start("one")
    assert (await harbour.until(bob.id)).state in ENDED_WELL
    given_up = await harbour.jobs.get(poison.id)
    assert given_up.state is State.FAILED
    assert given_up.error is not None
    assert given_up.error["code"] == "workers-died"
    assert given_up.error["stage"] == "train"


async def test_a_worker_that_stops_in_order_gives_its_job_away_at_once_with_a_checkpoint(harbour: Harbour) -> None:
    await harbour.add_user("ann")
    job = await harbour.submit("ann", steps=400)
    first = harbour.start("one", LORRY_TRAINING_LEASE_SECONDS="3600")
    await harbour.until_event(job.id, "stage began", stage="train")
    await harbour.until_true(lambda: _steps_done(harbour, job.id, 3), what="three steps")
    first.terminate()
    assert await asyncio.to_thread(first.wait, 120) == 0  # the registry that it may wait for answers from this loop
    del harbour.processes["one"]
    harbour.start("two", LORRY_TRAINING_LEASE_SECONDS="3600")
    ended = await harbour.until(job.id)
    assert ended.state in ENDED_WELL, ended.error
    assert ended.crashes == 0
    assert all(each.kind != "worker died" for each in await harbour.jobs.events(job.id))
    assert [each for each in await harbour.jobs.events(job.id) if each.kind == "taken"][-1].detail["worker_id"] == "two"


async def _alive(harbour: Harbour, worker_id: str) -> bool:
    return any(each["worker_id"] == worker_id and each["state"] == "alive" for each in await harbour.fleet.workers())


async def _taken(harbour: Harbour, job_id: str, times: int) -> bool:
    return (await harbour.kinds(job_id)).count("taken") >= times


async def _began(harbour: Harbour, job_id: str, stage: Stage, after: int) -> bool:
    events = (await harbour.jobs.events(job_id))[after:]
    return any(each.kind == "stage began" and each.detail["stage"] == stage for each in events)


def _records_of(harbour: Harbour, job_id: str) -> list[Path]:
    return [each for each in harbour.leftovers(job_id) if each.name == RECORD_FILE]


async def _nothing_of(harbour: Harbour, job_id: str) -> bool:
    return harbour.leftovers(job_id) == []


async def _training_again(harbour: Harbour, job_id: str, after: int) -> bool:
    progress = (await harbour.jobs.get(job_id)).progress
    events = (await harbour.jobs.events(job_id))[after:]
    began = any(each.kind == "stage began" and each.detail["stage"] == "train" for each in events)
    return began and progress is not None and progress["stage"] == "train"


async def _steps_done(harbour: Harbour, job_id: str, steps: int) -> bool:
    progress = (await harbour.jobs.get(job_id)).progress
    return progress is not None and progress["stage"] == "train" and progress["done"] >= steps
