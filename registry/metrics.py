"""What an on-call engineer sees of the registry on ``/metrics``: requests, engines, versions; never a name or an id."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from kit.background import FAILURES
from kit.database import Database
from kit.errors import DatabaseUnavailable
from kit.http_metrics import RequestMetrics
from registry.engines.directory import EngineDirectory
from registry.engines.schemas import EngineState
from registry.models import State
from registry.repository import RegistryRepository

_ENGINES_KEPT_SECONDS = 2.0
_VERSIONS_KEPT_SECONDS = 60.0


class RegistryMetrics:
    """The registry's measures. Gauges about the database are asked of it when somebody scrapes, not more often."""

    def __init__(self) -> None:
        """Create every series of a fixed label set at once, so that a rule can tell zero from nothing."""
        self.collectors = CollectorRegistry()
        self.collectors.register(FAILURES)
        self.requests = RequestMetrics(self.collectors, prefix="lorry_registry")
        self._database_up = Gauge(
            "lorry_registry_database_up",
            "1 = PostgreSQL answered the last scrape; 0 = the gauges below are of an earlier one.",
            registry=self.collectors,
        )
        self._engines = Gauge(
            "lorry_registry_engines",
            "Engines in the directory: alive; lapsed = silent for longer than their lease; left = stopped in order.",
            ["state"],
            registry=self.collectors,
        )
        self._versions = Gauge(
            "lorry_registry_versions",
            "Adapter versions by state; from the database's statistics when there are many.",
            ["state"],
            registry=self.collectors,
        )
        self._engines_until = self._versions_until = 0.0
        self._asking = asyncio.Lock()
        _fill(self._engines, get_args(EngineState), {})
        _fill(self._versions, State, {})

    async def render(self, database: Database, engines: EngineDirectory) -> bytes:
        """Return the measures in Prometheus' text form; the database is asked at most every two seconds."""
        async with self._asking:
            try:
                await self._ask(database, engines)
            except DatabaseUnavailable:
                self._database_up.set(0)
        return generate_latest(self.collectors)

    async def _ask(self, database: Database, engines: EngineDirectory) -> None:
        if time.monotonic() < self._engines_until:
            return
        _fill(self._engines, get_args(EngineState), await engines.count())
        self._database_up.set(1)
        self._engines_until = time.monotonic() + _ENGINES_KEPT_SECONDS
        if time.monotonic() < self._versions_until:
            return
        async with database.transaction() as session:
            counts = await RegistryRepository(session).count_versions()
        _fill(self._versions, State, counts)
        self._versions_until = time.monotonic() + _VERSIONS_KEPT_SECONDS


def _fill(gauge: Gauge, states: Iterable[str], counts: Mapping[str, float]) -> None:
    for state in states:
        gauge.labels(str(state)).set(counts.get(str(state), 0))
