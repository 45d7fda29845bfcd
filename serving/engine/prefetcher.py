"""Adapters that are brought before anybody asks, in the background: so many at once, and no more wait."""

from __future__ import annotations

import logging

from kit.background import Errands
from kit.errors import LorryError
from serving.engine.pool.pool import AdapterPool
from serving.errors import EngineBusy

_log = logging.getLogger(__name__)
_AT_ONCE = 32
_RETRY_SECONDS = 1


class Prefetcher:
    """Runs prefetches that nobody waits for."""

    def __init__(self, pool: AdapterPool, *, at_once: int = _AT_ONCE) -> None:
        self._pool = pool
        self._at_once = at_once
        self._running: set[str] = set()
        self._errands = Errands(of="engine")

    def start(self, version_id: str, *, urgent: bool) -> None:
        """Begin to bring a version; one that is on its way is no other one.

        Raises:
            EngineBusy: when as many are under way as may be.
            LorryError: when the pool is stopped.
        """
        self._pool.require_admitting()
        if version_id in self._running:
            return
        if len(self._running) >= self._at_once:
            raise EngineBusy(
                "The engine brings as many adapters at once as it may.", retry_after_seconds=_RETRY_SECONDS
            )
        task = self._errands.start(self._bring(version_id, urgent=urgent), doing=f"prefetching {version_id}")
        self._running.add(version_id)
        task.add_done_callback(lambda _: self._running.discard(version_id))

    async def close(self) -> None:
        """Stop what is under way."""
        await self._errands.close()

    async def _bring(self, version_id: str, *, urgent: bool) -> None:
        try:
            await self._pool.prefetch(version_id, urgent=urgent)
        except LorryError as exc:  # counted as a failed load, and told to whoever asks for the version
            _log.info("prefetched %s in vain: %s", version_id, exc.message)
