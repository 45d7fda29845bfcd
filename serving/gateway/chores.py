"""What a gateway does again and again beside its requests; while the database is silent, it is tried again later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from kit.background import again_and_again, attempt

_NAME = "gateway"


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
        self._task = asyncio.create_task(again_and_again(self._work, self._every_seconds, of=_NAME))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await attempt(self._last, of=_NAME)
