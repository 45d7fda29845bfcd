"""What an on-call engineer sees of trainings on ``/metrics``: jobs, workers, waiting, cost; never a name or an id."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from kit.database import Database
from kit.errors import DatabaseUnavailable
from kit.http_metrics import RequestMetrics
from training.jobs.costs.repository import MONTH, CostRepository
from training.jobs.fleet.repository import WorkerRepository
from training.jobs.health.repository import HealthRepository
from training.jobs.repository import JobRepository
from training.jobs.states import State

_KEPT_SECONDS = 2.0
_COSTS_KEPT_SECONDS = 60.0
_DEVICE_KINDS = ("train", "evaluate")
_WORKER_STATES = ("alive", "lapsed", "left")


class TrainingMetrics:
    """The service's measures. The database is asked when somebody scrapes, at most every two seconds."""

    def __init__(self) -> None:
        """Create every series at once, so that a rule can tell zero from nothing."""
        self.collectors = CollectorRegistry()
        self.requests = RequestMetrics(self.collectors, prefix="lorry_training")
        self._up = Gauge(
            "lorry_training_database_up",
            "1 = PostgreSQL answered the last scrape; 0 = the gauges below are of an earlier one.",
            registry=self.collectors,
        )
        self._jobs = Gauge("lorry_training_jobs", "Training jobs by state.", ["state"], registry=self.collectors)
        self._workers = Gauge(
            "lorry_training_workers",
            "Workers: alive; lapsed = silent for longer than their lease; left = stopped in order.",
            ["state"],
            registry=self.collectors,
        )
        self._waiting = Gauge(
            "lorry_training_oldest_waiting_seconds",
            "How long the job waits that waits longest for a worker, of those whose turn may come.",
            registry=self.collectors,
        )
        self._dollars = Gauge(
            "lorry_training_month_dollars",
            "What question writers were paid in the last 30 days.",
            registry=self.collectors,
        )
        self._device = Gauge(
            "lorry_training_month_device_seconds",
            "Seconds for which devices trained and evaluated in the last 30 days.",
            ["kind"],
            registry=self.collectors,
        )
        self._failures = Gauge(
            "lorry_training_recent_failures",
            "Jobs that failed in the last hour, by their error's code.",
            ["reason"],
            registry=self.collectors,
        )
        self._poison_users = Gauge(
            "lorry_training_poison_users",
            "Users whose job was given up in the last day because workers died under it.",
            registry=self.collectors,
        )
        self._stalled_campaigns = Gauge(
            "lorry_training_stalled_campaigns",
            "Campaigns that run, have somebody waiting, and begin nothing although their rate lets them.",
            registry=self.collectors,
        )
        self._spent_share = Gauge(
            "lorry_training_spent_share",
            "Largest share, of all tenants with a limit, of a month's dollars that is spent.",
            registry=self.collectors,
        )
        self._until = self._costs_until = 0.0
        self._asking = asyncio.Lock()
        _fill(self._jobs, [state.value for state in State], {})
        _fill(self._workers, list(_WORKER_STATES), {})
        _fill(self._device, list(_DEVICE_KINDS), {})

    async def render(self, database: Database) -> bytes:
        """Return the measures in Prometheus' text form."""
        async with self._asking:
            try:
                await self._ask(database)
            except DatabaseUnavailable:
                self._up.set(0)
        return generate_latest(self.collectors)

    async def _ask(self, database: Database) -> None:
        if time.monotonic() < self._until:
            return
        async with database.transaction() as session:
            repository = JobRepository(session)
            states = await repository.count_states()
            waiting = await repository.oldest_waiting_seconds()
            workers = await WorkerRepository(session).all()
            health = await HealthRepository(session).examine()
            if time.monotonic() >= self._costs_until:
                await self._ask_costs(CostRepository(session))
        counts: dict[str, int] = {}
        for each in workers:
            counts[each["state"]] = counts.get(each["state"], 0) + 1
        _fill(self._jobs, [state.value for state in State], states)
        _fill(self._workers, list(_WORKER_STATES), counts)
        self._waiting.set(waiting)
        self._failures.clear()
        _fill(self._failures, list(health.failures), health.failures)
        self._poison_users.set(health.poison_users)
        self._stalled_campaigns.set(health.stalled_campaigns)
        self._spent_share.set(health.spent_share)
        self._up.set(1)
        self._until = time.monotonic() + _KEPT_SECONDS

    async def _ask_costs(self, costs: CostRepository) -> None:
        spent = [row for row in await costs.sums(since=MONTH, by="kind") if not row["is_estimate"]]
        self._dollars.set(sum(row["dollars"] for row in spent))
        _fill(self._device, list(_DEVICE_KINDS), {row["of"]: row["device_seconds"] for row in spent})
        self._costs_until = time.monotonic() + _COSTS_KEPT_SECONDS


def _fill(gauge: Gauge, states: list[str], counts: Mapping[str, float]) -> None:
    for state in states:
        gauge.labels(state).set(counts.get(state, 0))
