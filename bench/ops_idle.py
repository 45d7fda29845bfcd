"""What Lorry's processes take while there is nothing to do, and how soon they begin when there is.

Each process runs alone beside PostgreSQL, SeaweedFS and the registry of one machine, with the settings that `lorry up`
gives it, or its defaults. Its own processor time is read from the system; what it costs PostgreSQL is the time of the
server's processes and the transactions that the server counted, less what both are while only the registry runs. A
batch and a training are submitted again and again meanwhile, one after the other: the wait is from the submission to
the moment that the worker had them in its hands, by the database's clock.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import psutil
from sqlalchemy import text

from bench.engines import tell
from bench.report import Measure, bound, report, rounds_or
from kit.database import Database
from lorry.context import Context, open_context
from lorry.local.part import Part, start_part
from serving.jobs.batch import Submission as BatchSubmission
from serving.jobs.batches import Batches
from serving.jobs.selection import Selection
from serving.jobs.settings import BatchSettings
from training.base_models import DEFAULT_BASE
from training.jobs.errors import IllegalJobTransition
from training.jobs.job import Submission
from training.jobs.jobs import Jobs
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript, Turn

_TARGET_PERCENT, _TARGET_SECONDS = 1.0, 1.0
_TENANT = "bench"
_PATIENCE_SECONDS = 300.0
_SETTLED_SECONDS = 10.0
_TRAINING_SETTLED_SECONDS = 70.0  # DBOS looks for schedules every second during its first minute
_COUNTED = text("select xact_commit + xact_rollback from pg_stat_database where datname = current_database()")

T = TypeVar("T")
Submit = Callable[[], Awaitable[float]]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a second of doing nothing takes: shares of one core in percent, and transactions."""

    own_percent: float
    server_percent: float
    transactions: float


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One process: how to start it, how long until it has settled, and how to give it something to do."""

    name: str
    part: Part
    settled_seconds: float = _SETTLED_SECONDS
    submit: Submit | None = None


async def run(*, quick: bool) -> Path:
    """Measure and write the report."""
    seconds, rounds = (10.0, 1) if quick else (30.0, rounds_or(3))
    with tempfile.TemporaryDirectory(prefix="lorry-bench-", ignore_cleanup_errors=True) as folder:
        os.environ |= {"LORRY_HOME": folder, "LORRY_PORT_BASE": "25700", "LORRY_GATEWAY_PORT": "25780"}
        async with open_context() as context:
            pids = {name: pid for name, _, pid in context.stack.addresses()}
            server = psutil.Process(pids["postgres"])
            observed = partial(_observe, context.database, server=server, seconds=seconds, rounds=rounds)
            await asyncio.sleep(_SETTLED_SECONDS)
            alone = await observed(psutil.Process(pids["registry"]))
            measures = _measures("registry", alone, beside=[])
            for subject in _subjects(context, Path(folder)):
                measures += await _measured(subject, observed, alone=alone, submissions=3 if quick else 10)
    return report("ops_idle", measures, peer="none: bounds", quick=quick)


async def _measured(
    subject: Subject,
    observed: Callable[[psutil.Process], Awaitable[list[Cost]]],
    *,
    alone: list[Cost],
    submissions: int,
) -> list[Measure]:
    async with AsyncExitStack() as exits:
        running = await start_part(subject.part)
        exits.push_async_callback(running.stop)
        await running.wait_until_healthy()
        await asyncio.sleep(subject.settled_seconds)
        measures = _measures(subject.name, await observed(psutil.Process(running.pid)), beside=alone)
        if subject.submit is not None:
            waits = [await subject.submit() for _ in range(submissions)]
            what = f"{subject.name}: wait of what was submitted, longest of {submissions}"
            measures.append(bound(what, unit="s", ours=[max(waits)], target=_TARGET_SECONDS))
    for each in measures:
        tell(f"{each.measure}: {each.ours:.3g} {each.unit}")
    return measures


def _measures(name: str, costs: list[Cost], *, beside: list[Cost]) -> list[Measure]:
    own = [each.own_percent for each in costs]
    server = [each.server_percent - _usual(beside, "server_percent") for each in costs]
    transactions = [each.transactions - _usual(beside, "transactions") for each in costs]
    return [
        bound(f"{name}: its own processor time", unit="% of a core", ours=own, target=_TARGET_PERCENT),
        bound(f"{name}: PostgreSQL's processor time for it", unit="% of a core", ours=server, target=_TARGET_PERCENT),
        bound(f"{name}: transactions", unit="1/s", ours=transactions, target=None),
    ]


def _usual(costs: list[Cost], what: str) -> float:
    return statistics.median(getattr(each, what) for each in costs) if costs else 0.0


async def _observe(
    database: Database, process: psutil.Process, *, server: psutil.Process, seconds: float, rounds: int
) -> list[Cost]:
    """Look at a process and at the server for so many seconds, several times."""
    costs = []
    for _ in range(rounds):
        began = time.perf_counter()
        before = await _transactions(database), _used(process), _used(server)
        await asyncio.sleep(seconds)
        after = await _transactions(database), _used(process), _used(server)
        took = time.perf_counter() - began
        transactions, own, servers = (late - early for early, late in zip(before, after, strict=True))
        costs.append(
            Cost(own_percent=100 * own / took, server_percent=100 * servers / took, transactions=transactions / took)
        )
    return costs


async def _transactions(database: Database) -> float:
    async with database.reading() as session:
        return float((await session.execute(_COUNTED)).scalar_one())


def _used(process: psutil.Process) -> float:
    """Return the processor time of a process and all its children, those that ended too, in seconds."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue  # it has just ended, and counts as its parent's
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _subjects(context: Context, folder: Path) -> list[Subject]:
    plan = context.plan
    shared = {
        "LORRY_DATABASE_URL": plan.database.database_url,
        "LORRY_REGISTRY_URL": plan.registry_url,
        "LORRY_REGISTRY_TOKEN": plan.registry_token,
    }
    training = {"LORRY_WORKER_ID": "idle", "LORRY_TRAINING_DIRECTORY": str(folder / "training"), **shared}
    return [
        Subject(
            name="extraction worker",
            part=plan.part("extraction", base_directory=Path()),
            submit=partial(_submit_batch, Batches(context.database, BatchSettings(**plan.storage.model_dump()))),
        ),
        Subject(
            name="training worker",
            part=_part("training.jobs", training, folder=folder),
            settled_seconds=_TRAINING_SETTLED_SECONDS,
            submit=partial(_submit_training, context.database, itertools.count()),
        ),
        Subject(name="conductor of erasures", part=_part("lorry.erasure", shared, folder=folder)),
        Subject(name="gateway", part=plan.part("gateway", base_directory=Path())),
    ]


def _part(module: str, environment: Mapping[str, str], *, folder: Path) -> Part:
    async def runs() -> bool:
        return True  # it has no door to ask at

    log = folder / f"{module}.log"
    argv = (sys.executable, "-m", module)
    return Part(name=module, argv=argv, environment=environment, log_path=log, address="", is_healthy=runs)


async def _submit_batch(batches: Batches) -> float:
    """Submit a batch of one user whom nobody knows; return the seconds until it was planned, and with it ended."""
    selection = Selection.of(users=("nobody",), everybody=False)
    batch = await batches.submit(BatchSubmission(tenant=_TENANT, selection=selection, webhook_url=None))
    found = await _until(lambda: batches.get(batch.id, tenant=_TENANT), lambda batch: batch.ended_at is not None)
    assert found.ended_at is not None
    return (found.ended_at - found.submitted_at).total_seconds()


async def _submit_training(database: Database, numbers: itertools.count[int]) -> float:
    """Submit a training of somebody who said too little; return the seconds until a worker took it."""
    user = f"user-{next(numbers)}"
    turns = (Turn(role="other", text="How are things?"), Turn(role="user", text="Never better, and with you?"))
    async with database.transaction() as session:
        await TranscriptStore(session).add(_TENANT, user, [Transcript(turns=turns, source_format="bench")])
    jobs = Jobs(database)
    job = await jobs.submit(Submission(tenant=_TENANT, user=user, base=DEFAULT_BASE))
    found = await _until(lambda: jobs.get(job.id), lambda job: job.started_at is not None)
    if not found.ended:
        with suppress(IllegalJobTransition):  # it has just ended
            await jobs.cancel(job.id)
    await _until(lambda: jobs.get(job.id), lambda job: job.ended)
    assert found.started_at is not None
    return (found.started_at - found.submitted_at).total_seconds()


async def _until(look: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> T:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not holds(found := await look()):
        if time.monotonic() > until:
            raise AssertionError(f"it did not happen in {_PATIENCE_SECONDS:.0f} s: {found}")
        await asyncio.sleep(0.05)
    return found
