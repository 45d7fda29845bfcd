"""Telling engines whose adapters are next, so that they are on its machine when their turn comes.

Nobody waits for a hint, and one that fails costs its user the loading time only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable

from kit.background import Errands
from kit.errors import LorryError
from registry.client import RegistryClient
from serving.extraction.engines import Engines

_REMEMBERED = 4096
_MOST_SECONDS = 10.0
_log = logging.getLogger(__name__)


class NextAdapters:
    """Sends hints in the background, one for each version."""

    def __init__(self, *, registry: RegistryClient, engines: Engines) -> None:
        self._registry = registry
        self._engines = engines
        self._told: OrderedDict[str, None] = OrderedDict()
        self._errands = Errands(of="extraction worker")

    def expect(self, version_ids: Iterable[str]) -> None:
        """Say that these versions are asked soon; those that were said before are passed over."""
        for version_id in version_ids:
            if version_id in self._told:
                continue
            self._told[version_id] = None
            while len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)
            self._errands.start(self._tell(version_id))

    async def close(self) -> None:
        """End the hints that are under way."""
        await self._errands.close()

    async def _tell(self, version_id: str) -> None:
        try:
            async with asyncio.timeout(_MOST_SECONDS):
                manifest = (await self._registry.get_version(version_id)).manifest
                await self._engines.of(manifest).prefetch(manifest, kind="batch")
        except (LorryError, TimeoutError) as exc:
            _log.debug("a hint to the engine came to nothing: %s", type(exc).__name__)
