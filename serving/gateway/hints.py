"""Telling engines which adapters are about to be asked for, so that they are there when the question comes.

Nobody waits for a hint and nobody is told of one that fails: without it, the first question only takes longer. There
are so many under way at once, and a version is hinted at once in a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Literal, Self

from kit.background import Errands
from kit.errors import LorryError
from registry.manifest import Manifest
from serving.extraction.engines import Engines
from serving.gateway.adapters import Adapters
from serving.gateway.brief_cache import BriefCache

_log = logging.getLogger(__name__)
_AT_ONCE = 32
_QUIET_SECONDS = 10.0
_MOST_SECONDS = 10.0


class Hints:
    """Sends hints in the background; an async context manager, which ends those under way when it is left."""

    def __init__(
        self,
        engines: Engines,
        adapters: Adapters,
        *,
        at_once: int = _AT_ONCE,
        quiet_seconds: float = _QUIET_SECONDS,
    ) -> None:
        """Prepare to send.

        Args:
            engines: who is told, each of the versions of its base.
            adapters: which version is live.
            at_once: hints under way; more are dropped.
            quiet_seconds: how long one version is not hinted at again.
        """
        self._engines = engines
        self._adapters = adapters
        self._at_once = at_once
        self._told: BriefCache[str, bool] = BriefCache(seconds=quiet_seconds)
        self._errands = Errands(of="gateway")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._errands.close()

    def expect(self, manifest: Manifest, *, kind: Literal["live", "batch"]) -> None:
        """Say that requests for this version are about to come."""
        self._start(self._tell(manifest, kind))

    def expect_live(self, tenant: str, user: str) -> None:
        """Say that a live request for the user's live version may be about to come."""
        self._start(self._tell_live(tenant, user))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._errands) >= self._at_once:
            work.close()
        else:
            self._errands.start(_quietly(work))

    async def _tell_live(self, tenant: str, user: str) -> None:
        await self._tell(await self._adapters.require_live(tenant, user), "live")

    async def _tell(self, manifest: Manifest, kind: Literal["live", "batch"]) -> None:
        if self._told.get(manifest.version_id) is None:
            self._told.put(manifest.version_id, True)
            await self._engines.of(manifest).prefetch(manifest, kind=kind)


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            await work
    except (LorryError, TimeoutError) as exc:
        _log.debug("a hint to the engine came to nothing: %s", type(exc).__name__)
