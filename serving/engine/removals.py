"""Removals under way, one after another for each version."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeVar

Result = TypeVar("Result")


class Removals:
    """What is being taken out of the workers, so that nothing puts it there at the same time.

    Laws: the removals of one version run in the order in which they began; a version counts as held until its last one
    has ended; who goes away does not stop one.
    """

    def __init__(self, *, held: Callable[[str], AbstractContextManager[None]]) -> None:
        """Start with none; `held` counts a version as held for the duration of a block."""
        self._held = held
        self._last: dict[str, asyncio.Task[Any]] = {}

    def begin(self, version_id: str, work: Callable[[], Awaitable[Result]]) -> Awaitable[Result]:
        """Do `work` once the earlier removals of the version have ended; returns what ends with it."""
        task = asyncio.create_task(_after(self._last.get(version_id), work))
        self._last[version_id] = task
        holding = ExitStack()
        holding.enter_context(self._held(version_id))

        def end(ended: asyncio.Task[Result]) -> None:
            holding.close()
            if self._last.get(version_id) is ended:
                del self._last[version_id]
            if not ended.cancelled():
                ended.exception()  # marks it as seen: whoever began it may have gone away

        task.add_done_callback(end)
        return asyncio.shield(task)

    async def ended(self, version_id: str) -> None:
        """Return once no removal of the version is under way."""
        while (last := self._last.get(version_id)) is not None:
            await asyncio.wait([last])


async def _after(before: asyncio.Task[Any] | None, work: Callable[[], Awaitable[Result]]) -> Result:
    if before is not None:
        await asyncio.wait([before])
    return await work()
