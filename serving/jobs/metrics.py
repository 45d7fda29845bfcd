"""What an on-call engineer sees of batch extraction on ``/metrics`` of each worker; never a name or an id.

Counters are this worker's; gauges about batches and workers are asked of the database when somebody scrapes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kit.background import FAILURES
from kit.database import Database
from kit.errors import LorryError
from serving.extraction.engines import EngineName
from serving.jobs.fleet.repository import WorkerRepository
from serving.jobs.repository import BatchRepository
from serving.jobs.states import UNFINISHED
from serving.jobs.webhooks.repository import DeliveryRepository

Outcome = Literal["done", "failed", "skipped", "again", "waits", "dropped"]
Stage = Literal["resolve", "ask", "keep"]
Delivery = Literal["delivered", "again", "given_up"]
_WORKER_STATES = ("alive", "lapsed", "left")
_BUCKETS = (0.05, 0.25, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280)
_KEPT_SECONDS = 2.0


class ExtractionMetrics:
    """One worker's measures."""

    def __init__(self) -> None:
        """Create every series at once, so that a rule can tell zero from nothing."""
        self.collectors = CollectorRegistry()
        self.collectors.register(FAILURES)
        self._users = Counter(
            "lorry_extraction_users",
            "Users that left this worker's hands: done, failed, skipped; again = tried again; waits = a part is away; "
            "dropped = canceled, or another worker's by now.",
            ["outcome"],
            registry=self.collectors,
        )
        self._seconds = Histogram(
            "lorry_extraction_user_seconds",
            "Seconds a user took in each stage: resolve (registry), ask (engine and evidence), keep (object store).",
            ["stage"],
            buckets=_BUCKETS,
            registry=self.collectors,
        )
        self._webhooks = Counter(
            "lorry_extraction_webhooks",
            "Tries to deliver a webhook's message: delivered; again = will be tried again; given_up.",
            ["outcome"],
            registry=self.collectors,
        )
        self._in_hand = Gauge(
            "lorry_extraction_users_in_hand", "Users that this worker has in hand now.", registry=self.collectors
        )
        self._engine_up = Gauge(
            "lorry_extraction_engine_up",
            "1 = this engine answered when this worker last looked; 0 = whoever needs it waits until it does. other = "
            "all engines of bases that have their own.",
            ["engine"],
            registry=self.collectors,
        )
        self._database_up = Gauge(
            "lorry_extraction_database_up",
            "1 = PostgreSQL answered the last scrape; 0 = the gauges below are of an earlier one.",
            registry=self.collectors,
        )
        self._batches = Gauge(
            "lorry_extraction_batches", "Batches that have not ended, by state.", ["state"], registry=self.collectors
        )
        self._stuck = Gauge(
            "lorry_extraction_stuck_seconds",
            "How long no user came to an end in the running batch of which that is longest true.",
            registry=self.collectors,
        )
        self._workers = Gauge(
            "lorry_extraction_workers",
            "Workers: alive; lapsed = silent for longer than their lease; left = stopped in order.",
            ["state"],
            registry=self.collectors,
        )
        self._pending = Gauge(
            "lorry_extraction_webhooks_pending", "Webhooks' messages not delivered yet.", registry=self.collectors
        )
        for labelled, values in (
            (self._users, get_args(Outcome)),
            (self._seconds, get_args(Stage)),
            (self._webhooks, get_args(Delivery)),
        ):
            for value in values:
                labelled.labels(value)
        _fill(self._batches, _unfinished(), {})
        _fill(self._workers, _WORKER_STATES, {})
        self.set_engines_away(frozenset())
        self._until = 0.0
        self._asking = asyncio.Lock()

    def count_user(self, outcome: Outcome) -> None:
        """Count a user that left this worker's hands."""
        self._users.labels(outcome).inc()

    def count_webhook(self, outcome: str) -> None:
        """Count a try to deliver a message."""
        self._webhooks.labels(outcome).inc()

    def set_in_hand(self, users: int) -> None:
        """Say how many users this worker has in hand."""
        self._in_hand.set(users)

    def set_engines_away(self, away: Collection[EngineName]) -> None:
        """Say which engines do not answer."""
        for name in get_args(EngineName):
            self._engine_up.labels(name).set(name not in away)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Measure how long a stage takes that comes to its end."""
        began = time.perf_counter()
        yield
        self._seconds.labels(stage).observe(time.perf_counter() - began)

    async def render(self, database: Database) -> bytes:
        """Return the measures in Prometheus' text form; the database is asked at most every two seconds."""
        async with self._asking:
            try:
                await self._ask(database)
            except LorryError:
                self._database_up.set(0)
        return generate_latest(self.collectors)

    async def _ask(self, database: Database) -> None:
        if time.monotonic() < self._until:
            return
        async with database.reading() as session:
            repository = BatchRepository(session)
            batches, stuck = await repository.count_states(), await repository.stuck_seconds()
            workers, pending = await WorkerRepository(session).all(), await DeliveryRepository(session).pending()
        counts: dict[str, int] = {}
        for each in workers:
            counts[each["state"]] = counts.get(each["state"], 0) + 1
        _fill(self._batches, _unfinished(), {state.value: count for state, count in batches.items()})
        _fill(self._workers, _WORKER_STATES, counts)
        self._stuck.set(stuck)
        self._pending.set(pending)
        self._database_up.set(1)
        self._until = time.monotonic() + _KEPT_SECONDS


def _unfinished() -> list[str]:
    return sorted(state.value for state in UNFINISHED)


def _fill(gauge: Gauge, states: Iterable[str], counts: Mapping[str, int]) -> None:
    for state in states:
        gauge.labels(state).set(counts.get(state, 0))
