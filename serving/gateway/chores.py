"""What a gateway does again and again beside its requests; while the database is silent, it is tried again later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from kit.errors import LorryError

_log = logging.getLogger(__name__)


class Chore:
    """Runs `work` every so often while the block runs, and `last` when it ends; failures are logged and forgotten."""

    def __init__(
        self, work: Callable[[], Awaitable[None]], *, every_seconds: float, last: Callable[[], Awaitable[None]]
    ) -> None:
        self._work = work
        self._every_seconds = every_seconds
        self._last = last
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._repeat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._once(self._last)

    async def _repeat(self) -> None:
        while True:
            await self._once(self._work)
            await asyncio.sleep(self._every_seconds)

    async def _once(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except LorryError as exc:
            _log.warning("a chore of the gateway failed: %s", type(exc).__name__)
        except Exception as exc:  # a chore that ended would never be done again, and nobody would hear of it
            _log.error("a chore of the gateway broke: %s", type(exc).__name__, exc_info=exc)
