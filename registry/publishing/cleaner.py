"""Removing what is not needed any more behind the back of requests, a thousand objects to a call.

What a killed process had not removed yet is found by reconcile, or by the bucket's lifecycle rule.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from kit.background import Errands
from kit.errors import StorageUnavailable
from kit.storage import ObjectStorage

_log = logging.getLogger(__name__)
_BATCH = 1000
_WAIT_SECONDS = 0.5


class Cleaner:
    """Remembers keys and deletes them soon; `close` deletes what is left."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self._keys: set[str] = set()
        self._errands = Errands(of="registry")

    def remove(self, keys: Iterable[str]) -> None:
        """Have these objects deleted soon; those that are not there are no error."""
        self._keys.update(keys)
        if self._keys and not self._errands:
            self._errands.start(self._run())

    async def close(self) -> None:
        """Delete what is left."""
        await self._errands.close()
        await self._flush()

    async def _run(self) -> None:
        await asyncio.sleep(_WAIT_SECONDS)
        while self._keys:
            await self._flush()

    async def _flush(self) -> None:
        while self._keys:
            batch = [self._keys.pop() for _ in range(min(_BATCH, len(self._keys)))]
            try:
                await self._storage.delete_many(batch)
            except StorageUnavailable:
                _log.warning("%d uploads are left for reconcile to remove", len(batch))
