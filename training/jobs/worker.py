"""One training worker: takes jobs, shows signs of life, hears what people ask, adopts what dead workers left."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

from kit.background import again_and_again, until_told
from kit.database import Database
from kit.errors import LorryError
from kit.workers import SIGNS_PER_LEASE, has_ended, identify_process
from registry.client import RegistryClient
from training.erasure.disk import clear_disk
from training.jobs.assignment import Assignment, StopReason
from training.jobs.desk import Desk
from training.jobs.dispatch import choose
from training.jobs.durable import DurableQueue
from training.jobs.errors import WorkerIdTaken
from training.jobs.fleet.repository import WorkerRepository
from training.jobs.models import WorkerRow
from training.jobs.quotas.repository import QuotaRepository
from training.jobs.repository import JobRepository
from training.jobs.settings import WorkerSettings
from training.jobs.states import ACTIVE, Wish
from training.jobs.upkeep import Upkeep
from training.jobs.workshop.workshop import Workshop
from training.writers.settings import WriterSettings
from transcripts.redaction import RedactionSettings, Redactor
from transcripts.store import TranscriptStore

_NAME = "training worker"
_log = logging.getLogger(__name__)
_PARKING_SECONDS = 30.0
_FORGET_RUNS_DAYS = 7.0


class Worker:
    """One worker process. `run` returns when it is told to stop, and its jobs are free for others then."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        writers: WriterSettings | None = None,
        redaction: RedactionSettings | None = None,
        tell: Callable[[str], None] = _log.info,
    ) -> None:
        """Read what is redacted, unless told; nothing else happens before `run`.

        `tell` is given what the worker does, in lines: its log's unless a command prints them.

        Raises:
            ConfigInvalid: the redaction file cannot be used.
        """
        self._settings = settings
        self._writers = writers or WriterSettings()
        self._redactor = Redactor(redaction or self._writers.redaction())
        self._tell = tell
        self._boot = identify_process()
        self._heard = time.monotonic()
        self._lost = False
        self.stop = asyncio.Event()

    async def run(self, *, until_idle: bool = False) -> None:
        """Work until `stop` is set, or with `until_idle` until no job is left that has not ended or been paused.

        Raises:
            WorkerIdTaken: another worker that is alive has this id.
            DatabaseUnavailable: PostgreSQL does not answer at the start; later it is waited for.
        """
        settings = self._settings
        # A frozen worker's open transaction would hold rows that others need to adopt its jobs.
        idle_seconds = min(settings.database_idle_transaction_seconds, max(settings.training_lease_seconds, 5.0))
        database = Database(settings.model_copy(update={"database_idle_transaction_seconds": idle_seconds}))
        registry_token = settings.registry_token.get_secret_value()
        try:
            async with RegistryClient(
                url=settings.registry_url, token=registry_token, actor=f"training-{settings.worker_id}"
            ) as registry:
                workshop = Workshop(
                    settings, database=database, registry=registry, writers=self._writers, redactor=self._redactor
                )
                self._database, self._queue = database, DurableQueue(settings)
                self._desk = Desk(settings, database=database, workshop=workshop, tell=self._tell)
                self._upkeep = Upkeep(settings, database=database, workshop=workshop)
                await self._work(until_idle=until_idle)
        finally:
            await database.close()

    async def _work(self, *, until_idle: bool) -> None:
        await self._register()
        # From now on: DBOS prepares its tables at the first launch, which may take longer than a lease.
        signs = self._begin(self._show_life, self._settings.training_lease_seconds / SIGNS_PER_LEASE)
        try:
            await self._upkeep.bury(self._settings.worker_id)  # what an earlier process of this id held when it died
            await self._queue.launch(self._desk)
        except BaseException:
            signs.cancel()
            await asyncio.gather(signs, return_exceptions=True)
            raise
        _log.info("training worker %s works", self._settings.worker_id)
        poll = self._settings.training_poll_seconds
        chores: list[tuple[Callable[[], Awaitable[Any]], float]] = [
            (self._watch, poll),
            (self._look, poll),
            (self._adopt, max(poll, self._settings.training_lease_seconds / SIGNS_PER_LEASE)),
            (self._clear_disk, self._settings.training_lease_seconds / SIGNS_PER_LEASE),
            (self._upkeep.pull_triggers, self._settings.training_upkeep_seconds),
            (self._upkeep.advance_campaigns, self._settings.training_upkeep_seconds),
            (self._sweep, self._settings.training_upkeep_seconds),
        ]
        if until_idle:
            chores.append((self._stop_when_idle, poll))
        tasks = [signs, *(self._begin(chore, every) for chore, every in chores)]
        try:
            await until_told(self.stop, *tasks, of=_NAME)
        finally:
            await self._leave(tasks)

    def _begin(self, chore: Callable[[], Awaitable[Any]], every_seconds: float) -> asyncio.Task[None]:
        return asyncio.create_task(again_and_again(chore, every_seconds, of=_NAME))

    # ----- beginning and end

    async def _register(self) -> None:
        """Become the worker of this id, after waiting until an earlier process of it has certainly ended."""
        deadline = time.monotonic() + self._settings.training_lease_seconds + 1.0
        first: WorkerRow | None = None
        while True:
            async with self._database.transaction() as session:
                repository = WorkerRepository(session)
                row = await repository.get(self._settings.worker_id)
                free = row is None or _is_over(row) or not await repository.is_alive(self._settings.worker_id)
                if free:
                    await repository.register(self._describe())
                    return
                first = first or row
                if row is not None and first is not None and row.heard_at > first.heard_at:
                    raise WorkerIdTaken(
                        f"worker {self._settings.worker_id} is alive on {row.host}; give this one another id",
                        field="LORRY_WORKER_ID",
                    )
            if time.monotonic() > deadline:
                raise WorkerIdTaken(
                    f"worker {self._settings.worker_id} is alive elsewhere; give this one another id",
                    field="LORRY_WORKER_ID",
                )
            await asyncio.sleep(min(1.0, self._settings.training_lease_seconds / SIGNS_PER_LEASE))

    def _describe(self) -> dict[str, Any]:
        return {
            "id": self._settings.worker_id,
            "boot": self._boot,
            "host": socket.gethostname(),
            "prepare_slots": self._settings.training_prepare_slots,
            "train_slots": 1 if self._settings.training_trains else 0,
            "lease_seconds": self._settings.training_lease_seconds,
        }

    async def _leave(self, tasks: list[asyncio.Task[None]]) -> None:
        """Park what runs, give it away, and stop."""
        self._desk.close()
        end = time.monotonic() + _PARKING_SECONDS
        while self._desk.assignments and time.monotonic() < end:  # noqa: ASYNC110 - they end in threads of DBOS
            await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._queue.close()
        try:
            async with self._database.transaction() as session:
                ours = await WorkerRepository(session).leave(self._settings.worker_id, boot=self._boot)
                if ours and not self._desk.assignments:  # else what this id holds is the other process's
                    await JobRepository(session).release(self._settings.worker_id)
        except LorryError as exc:
            _log.warning("could not sign off: %s", type(exc).__name__)

    # ----- chores

    async def _show_life(self) -> None:
        """Extend the lease; a worker that could not for too long lets go of everything, as others adopt it by then."""
        lease = self._settings.training_lease_seconds
        try:
            async with asyncio.timeout(lease / 2):
                async with self._database.transaction() as session:
                    known = await WorkerRepository(session).hear(self._settings.worker_id, boot=self._boot)
        except (LorryError, OSError, TimeoutError):
            if time.monotonic() - self._heard > lease * 0.75 and not self._lost:
                _log.warning("the database was away for as long as the lease: letting go of all jobs")
                self._lost = True
                self._desk.park()
            return
        if not known:
            _log.error("another worker has the id %s now: stopping", self._settings.worker_id)
            self.stop.set()
            return
        self._heard = time.monotonic()
        if self._lost and self._queue.is_open:
            await self._queue.recover(self._settings.worker_id)
            self._lost = False

    async def _watch(self) -> None:
        """Pass on what people asked of the jobs held here, notice erased transcripts, write down progress."""
        held = dict(self._desk.assignments)
        if not held:
            return
        async with self._database.transaction() as session:
            repository, store = JobRepository(session), TranscriptStore(session)
            ours = {each.id: each for each in await repository.holds(self._settings.worker_id)}
            for job_id, job in held.items():
                row = ours.get(job_id)
                if row is None or row.run != job.run:
                    if self._desk.assignments.get(job_id) is job and job.stage is not None:
                        job.stop(StopReason.PARKED)
                    continue
                _pass_on(job, row.wish)
                if job.transcript_ids and not await store.has_all(job.tenant, job.user, job.transcript_ids):
                    job.stop(StopReason.ERASED)
                if (progress := job.progress) is not None:
                    await repository.tell(job_id, run=job.run, progress=progress.to_json())

    async def _look(self) -> None:
        """See in one question what there is to do; a worker with nothing to do asks no more."""
        async with self._database.reading() as session:
            news = await JobRepository(session).news(self._settings.worker_id)
        handed_over = news.to_hand_over and await self._dispatch()
        self._queue.expect(something=handed_over or news.to_take or news.ours > len(self._desk.assignments))

    async def _dispatch(self) -> bool:
        """Hand waiting jobs over, as many as all workers have free slots for; say whether there was one."""
        handed_over = False
        async with self._database.transaction() as session:
            repository = JobRepository(session)
            if not await repository.try_lock("dispatch"):
                return False
            waiting = await repository.waiting()
            if not waiting:
                return False
            slots = await WorkerRepository(session).slots()
            held, running = await repository.held()
            quotas = await QuotaRepository(session).all()
            free = {phase: count - held.get(phase, 0) for phase, count in slots.items()}
            for job in choose(waiting, free=free, running=running, quotas=quotas):
                row = await repository.hand_over(job.id)
                if row is not None:
                    await self._queue.hand_over(session, job_id=row.id, run=row.run, phase=job.phase)
                    handed_over = True
        return handed_over

    async def _adopt(self) -> None:
        """Put the work of workers that have left or died back into the queues."""
        dead = await self._upkeep.dead_workers()
        if not dead:
            return
        holding = await self._upkeep.holders() | await self._queue.holders()
        for worker_id in sorted(holding.intersection(dead)):
            await self._upkeep.bury(worker_id)
            await self._queue.recover(worker_id)

    async def _clear_disk(self) -> None:
        """Remove what this machine has of users who are being erased."""
        await clear_disk(
            self._database,
            worker_id=self._settings.worker_id,
            jobs_directory=self._settings.jobs_directory,
            held=dict(self._desk.assignments),
        )

    async def _sweep(self) -> None:
        await self._upkeep.put_back_lost(self._queue.lost)
        await self._upkeep.sweep()
        await self._queue.forget(older_than_days=_FORGET_RUNS_DAYS)

    async def _stop_when_idle(self) -> None:
        async with self._database.reading() as session:
            counts = await JobRepository(session).count_states()
        if not any(counts.get(state, 0) for state in ACTIVE if state != "paused"):
            self.stop.set()


def _pass_on(job: Assignment, wish: Wish) -> None:
    match wish:
        case Wish.CANCEL:
            job.stop(StopReason.CANCELED)
        case Wish.PAUSE:
            job.stop(StopReason.PAUSED)
        case Wish.NONE:
            job.go_on()


def _is_over(row: WorkerRow) -> bool:
    """Say whether the process that wrote this row certainly runs no more: only its own machine can tell."""
    return row.left_at is not None or has_ended(row.boot, host=row.host)
