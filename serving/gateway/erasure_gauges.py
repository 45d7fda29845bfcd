"""What Prometheus hears of erasures: how many run, how old the oldest is, how long nobody looked at one. No names."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import CollectorRegistry, Gauge

from kit.database import Database
from kit.errors import DatabaseUnavailable
from serving.erasure.repository import ErasureRepository

_KEPT_SECONDS = 2.0
_PATIENCE_SECONDS = 2.0  # a scrape must not wait for a database that hangs


class ErasureGauges:
    """The measures of erasures. The database is asked when somebody scrapes; while it is away they stay as they are."""

    def __init__(self, collectors: CollectorRegistry) -> None:
        self._running = Gauge("lorry_erasures_running", "Erasures that have not ended.", registry=collectors)
        self._oldest = Gauge(
            "lorry_erasure_oldest_seconds", "How long ago the oldest of them was asked for.", registry=collectors
        )
        self._unattended = Gauge(
            "lorry_erasure_unattended_seconds",
            "How long one of them was not looked at: a conductor does so every few seconds.",
            registry=collectors,
        )
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def refresh(self, database: Database) -> None:
        """Ask the database, at most every two seconds."""
        async with self._asking:
            if time.monotonic() < self._until:
                return
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS), database.reading() as session:
                    found = await ErasureRepository(session).backlog()
            except (DatabaseUnavailable, TimeoutError):
                return
            self._running.set(found.running)
            self._oldest.set(found.oldest_seconds)
            self._unattended.set(found.unattended_seconds)
            self._until = time.monotonic() + _KEPT_SECONDS
