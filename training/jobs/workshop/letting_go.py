"""Long work that cannot be broken off, and how a job that must stop lets go of it: the work goes on, unwaited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

T = TypeVar("T")
Check = Callable[[], None]  # raises when the job must stop
_LOOK_SECONDS = 0.2


def in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Do something long in a thread that ends with the process, whatever it is doing."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
            future.exception()  # who has let go of it does not ask
        else:
            future.set_result(cast(T, result))

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as exc:  # whatever it is, somebody waits for it
            error = exc
        with suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return future


async def unless_stopped(future: asyncio.Future[T], check: Check) -> T:
    """Wait, but let go within a moment when the job must stop; the work itself goes on."""
    while True:
        check()
        await asyncio.wait({future}, timeout=_LOOK_SECONDS)
        if future.done():
            return future.result()


def end_of(future: asyncio.Future[Any]) -> asyncio.Future[None]:
    """Return the end of another's work: whether it failed was for that other to hear."""
    ended: asyncio.Future[None] = future.get_loop().create_future()

    def settle(_: asyncio.Future[Any]) -> None:
        if not ended.done():
            ended.set_result(None)

    future.add_done_callback(settle)
    return ended
