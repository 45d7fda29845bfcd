"""One extraction worker: plans batches, walks them, shows signs of life, takes over from workers that died."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from kit.background import again_and_again, until_told
from kit.database import Database
from kit.errors import LorryError
from kit.workers import SIGNS_PER_LEASE, has_ended, identify_process
from registry.client import RegistryClient
from serving.extraction.bank import Bank, standard_bank
from serving.extraction.engine_client import EngineClient
from serving.extraction.engines import EngineName, Engines
from serving.jobs.errors import WorkerIdTaken
from serving.jobs.extraction import UserExtraction
from serving.jobs.fleet.repository import WorkerRepository
from serving.jobs.hints import NextAdapters
from serving.jobs.limits import TenantLimits
from serving.jobs.metrics import ExtractionMetrics
from serving.jobs.models import WorkerRow
from serving.jobs.operations import answering, operations
from serving.jobs.outages import Outages
from serving.jobs.planning.planner import Planner
from serving.jobs.repository import BatchRepository
from serving.jobs.settings import ExtractionWorkerSettings
from serving.jobs.states import BatchState
from serving.jobs.upkeep import Upkeep
from serving.jobs.users.repository import UserRepository
from serving.jobs.vault import Vault
from serving.jobs.walk import Walk
from serving.jobs.webhooks.deliveries import Deliveries
from serving.jobs.webhooks.repository import DeliveryRepository

_NAME = "extraction worker"
_log = logging.getLogger(__name__)


class Worker:
    """One worker process. `run` returns when it is told to stop, and its users wait for others then."""

    def __init__(self, settings: ExtractionWorkerSettings, *, bank: Bank | None = None) -> None:
        """Connect to nothing yet; `bank` None = the one that Lorry ships."""
        self._settings = settings
        self._bank = bank or standard_bank()
        self._boot = identify_process()
        self._heard = time.monotonic()
        self._lost = False
        self.metrics = ExtractionMetrics()
        self.port = 0
        self._to_plan, self._to_tell = asyncio.Event(), asyncio.Event()
        self.stop = asyncio.Event()

    async def run(self, *, until_idle: bool = False) -> None:
        """Work until `stop` is set, or with `until_idle` until no batch is left but paused ones.

        Raises:
            WorkerIdTaken: another worker that is alive has this id.
            DatabaseUnavailable: PostgreSQL does not answer at the start; later it is waited for.
            OSError: the address of health and metrics is taken.
            BackgroundEnded: it cannot answer on that address any more, or stopped doing one of its chores.
        """
        async with self._parts():
            app = operations(database=self._database, metrics=self.metrics, is_ready=lambda: not self.stop.is_set())
            host, port = self._settings.extraction_worker_host, self._settings.extraction_worker_port
            await self._register()
            async with answering(app, host=host, port=port) as door:
                self.port = door.port
                await self._upkeep.bury(self._settings.worker_id)  # what an earlier process of this id held
                _log.info("extraction worker %s works", self._settings.worker_id)
                await self._work(door.answers, until_idle=until_idle)

    @asynccontextmanager
    async def _parts(self) -> AsyncIterator[None]:
        """Connect everything that the worker works with, and let go of it when the block ends."""
        settings = self._settings
        # A frozen worker's open transaction would hold rows that others need to go on.
        idle_seconds = min(settings.database_idle_transaction_seconds, max(settings.extraction_lease_seconds, 5.0))
        database = Database(settings.model_copy(update={"database_idle_transaction_seconds": idle_seconds}))
        token = settings.registry_token.get_secret_value()
        try:
            async with (
                RegistryClient(url=settings.registry_url, token=token, actor="extraction") as registry,
                Engines.connected(
                    settings.engine_url, of_bases=settings.base_engine_urls, connect=self._connect
                ) as engines,
            ):
                vault, hints = Vault(settings, registry), NextAdapters(registry=registry, engines=engines)
                try:
                    self._assemble(database, registry, engines, vault, hints)
                    yield
                finally:
                    await hints.close()
                    vault.close()
        finally:
            await database.close()

    def _connect(self, url: str, name: EngineName) -> EngineClient:
        settings = self._settings
        token = settings.engine_token.get_secret_value()
        return EngineClient(url=url, token=token, timeout_seconds=settings.engine_timeout_seconds)

    def _assemble(
        self, database: Database, registry: RegistryClient, engines: Engines, vault: Vault, hints: NextAdapters
    ) -> None:
        settings, metrics = self._settings, self.metrics
        extraction = UserExtraction(
            settings,
            database=database,
            registry=registry,
            engines=engines,
            vault=vault,
            bank=self._bank,
            metrics=metrics,
        )
        self._database = database
        self._outages = Outages(engines, metrics=metrics)
        self._walk = Walk(
            settings,
            database=database,
            outages=self._outages,
            extraction=extraction,
            vault=vault,
            hints=hints,
            metrics=metrics,
        )
        limits = TenantLimits(database, settings)
        self._planner = Planner(
            worker_id=settings.worker_id, database=database, registry=registry, bank=self._bank, limits=limits
        )
        self._upkeep = Upkeep(settings, database=database, vault=vault)
        self._deliveries = Deliveries(settings, database=database, on_delivery=metrics.count_webhook)

    async def _work(self, answers: asyncio.Task[None], *, until_idle: bool) -> None:
        settings = self._settings
        poll, beat = settings.extraction_poll_seconds, settings.extraction_lease_seconds / SIGNS_PER_LEASE
        living = asyncio.create_task(again_and_again(self._show_life, beat, of=_NAME))
        chores: list[tuple[Callable[[], Awaitable[Any]], float]] = [
            (self._look, poll),
            (self._plan, 0.0),
            (self._take, 0.0),
            (self._tell, 0.0),
            (self._outages.look_again, poll),
            (self._upkeep.adopt, max(poll, beat)),
            (self._upkeep.sweep, settings.extraction_upkeep_seconds),
        ]
        if until_idle:
            chores.append((self._stop_when_idle, poll))
        tasks = [asyncio.create_task(again_and_again(chore, every, of=_NAME)) for chore, every in chores]
        try:
            await until_told(self.stop, answers, living, *tasks, of=_NAME)
        finally:
            await self._leave([living, *tasks], living=living)

    # ----- beginning and end

    async def _register(self) -> None:
        """Become the worker of this id, after waiting until an earlier process of it has certainly ended."""
        deadline = time.monotonic() + self._settings.extraction_lease_seconds + 1.0
        first: WorkerRow | None = None
        while True:
            async with self._database.transaction() as session:
                repository = WorkerRepository(session)
                row = await repository.get(self._settings.worker_id)
                if row is None or _is_over(row) or not await repository.is_alive(row.id):
                    await repository.register(self._describe())
                    self._heard = time.monotonic()
                    return
                first = first or row
            if row.heard_at > first.heard_at or time.monotonic() > deadline:
                raise WorkerIdTaken(
                    f"worker {row.id} is alive on {row.host}; give this one another id", field="LORRY_WORKER_ID"
                )
            await asyncio.sleep(min(1.0, self._settings.extraction_lease_seconds / SIGNS_PER_LEASE))

    def _describe(self) -> dict[str, Any]:
        return {
            "id": self._settings.worker_id,
            "boot": self._boot,
            "host": socket.gethostname(),
            "slots": self._settings.extraction_users_at_once,
            "lease_seconds": self._settings.extraction_lease_seconds,
        }

    async def _leave(self, tasks: list[asyncio.Task[None]], *, living: asyncio.Task[None]) -> None:
        """Let users in hand come to their end, give the others away, and sign off; signs of life go on until then."""
        for task in tasks:
            if task is not living:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not living), return_exceptions=True)
        await self._walk.close(within_seconds=0.0 if self._lost else self._settings.extraction_drain_seconds)
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        try:
            async with self._database.transaction() as session:
                if await WorkerRepository(session).leave(self._settings.worker_id, boot=self._boot):
                    await UserRepository(session).put_back_all(self._settings.worker_id)
        except LorryError as exc:
            _log.warning("could not sign off: %s", type(exc).__name__)

    # ----- chores

    async def _look(self) -> None:
        """See in one question what there is to do, and wake who does it: a worker with nothing to do asks no more."""
        async with self._database.reading() as session:
            news = await BatchRepository(session).news(self._settings.worker_id)
        if news.to_plan:
            self._to_plan.set()
        if news.to_take and not self._lost:
            self._walk.free.set()
        if news.to_tell:
            self._to_tell.set()
        if news.held or self._walk.in_hand:
            await self._walk.look_after()

    async def _plan(self) -> None:
        await self._to_plan.wait()
        self._to_plan.clear()
        while await self._planner.plan_next():
            self._walk.free.set()

    async def _take(self) -> None:
        await self._walk.free.wait()
        if self._lost:
            self._walk.free.clear()
        else:
            await self._walk.take()

    async def _tell(self) -> None:
        await self._to_tell.wait()
        self._to_tell.clear()
        await self._deliveries.deliver_due()

    async def _show_life(self) -> None:
        """Extend the lease; a worker that could not for too long lets go of everybody: others have them by then."""
        lease = self._settings.extraction_lease_seconds
        try:
            async with asyncio.timeout(lease / 2):
                async with self._database.transaction() as session:
                    known = await WorkerRepository(session).hear(self._settings.worker_id, boot=self._boot)
        except (LorryError, OSError, TimeoutError):
            if time.monotonic() - self._heard > lease * 0.75 and not self._lost:
                _log.warning("the database was away for as long as the lease: letting go of all users")
                self._lost = True
                self._walk.let_go()
            return
        if not known:
            _log.error("another worker has the id %s now: stopping", self._settings.worker_id)
            self._lost = True
            self._walk.let_go()
            self.stop.set()
            return
        self._heard, self._lost = time.monotonic(), False

    async def _stop_when_idle(self) -> None:
        async with self._database.reading() as session:
            counts = await BatchRepository(session).count_states()
            pending = await DeliveryRepository(session).pending()
        if not pending and not any(count for state, count in counts.items() if state is not BatchState.PAUSED):
            self.stop.set()


def _is_over(row: WorkerRow) -> bool:
    """Say whether the process that wrote this row certainly runs no more."""
    return row.left_at is not None or has_ended(row.boot, host=row.host)
