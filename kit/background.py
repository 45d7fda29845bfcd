"""Work that nobody waits for: none of it ends or fails without somebody hearing of it.

What is done again and again goes on whatever goes wrong; what is begun once is held until it has ended; what a process
cannot be without ends the process. Failures are logged and counted in `FAILURES`, which each process with a
``/metrics`` shows there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, get_args

from prometheus_client import Counter

from kit.errors import BackgroundEnded, LorryError

Kind = Literal["refused", "broken"]
FAILURES = Counter(
    "lorry_background_failures",
    "Failures of work in the background, by what does it: refused = by a part that is away or says no; broken = "
    "unexpectedly, which is a mistake of Lorry's; the log has its place.",
    ["work", "kind"],
    registry=None,
)
_FIRST_PAUSE_SECONDS, _MOST_PAUSE_SECONDS = 0.5, 5.0
_log = logging.getLogger(__name__)


async def attempt(work: Callable[[], Awaitable[Any]], *, of: str, doing: str = "work in the background") -> bool:
    """Do something once; what goes wrong is logged and counted, as of the process or part `of`.

    `doing` says in the log what it was; it must name no person. Returns whether it went well. Only the cancellation of
    the task that this runs in rises: one that comes from within the work is a failure like any other.
    """
    try:
        await work()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        _log.error("%s: %s was broken off from within", of, doing, exc_info=True)
        FAILURES.labels(of, "broken").inc()
    except (LorryError, OSError) as exc:
        _log.warning("%s: %s failed: %s", of, doing, type(exc).__name__)
        FAILURES.labels(of, "refused").inc()
    except Exception:  # whatever it is, the work that comes after it must be done
        _log.exception("%s: %s failed unexpectedly", of, doing)
        FAILURES.labels(of, "broken").inc()
    else:
        return True
    return False


async def again_and_again(chore: Callable[[], Awaitable[Any]], every_seconds: float, *, of: str) -> None:
    """Do a chore until cancelled; after a failure the pause is doubled, up to five seconds, and no shorter than usual.

    A chore with a pause of 0 waits itself for what there is to do.
    """
    show_failures(of)
    failures = 0
    while True:
        failures = 0 if await attempt(chore, of=of) else failures + 1
        pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10), _MOST_PAUSE_SECONDS) if failures else 0.0
        await asyncio.sleep(max(every_seconds, pause))


class Errands:
    """Work that is begun once, by somebody who does not wait for it."""

    def __init__(self, *, of: str) -> None:
        """Begin with none; `of` is who does them, as the log and the metric say."""
        show_failures(of)
        self._of = of
        self._tasks: set[asyncio.Task[bool]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, Any], *, doing: str = "an errand") -> asyncio.Task[bool]:
        """Begin something, named in the log as `attempt` does; the task, which never fails, says if it went well."""
        task = asyncio.create_task(attempt(lambda: work, of=self._of, doing=doing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # one that was cancelled before it began
        return task

    def cancel(self) -> None:
        """Break off what is under way."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Break off what is under way, and wait until it has ended."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def until_told(stop: asyncio.Event, *works: asyncio.Task[Any], of: str) -> None:
    """Wait until told to stop; what a process cannot be without must not end before.

    Raises:
        LorryError: one of `works` ended with this refusal.
        BackgroundEnded: one ended in another way; what it raised is the cause.
    """
    told = asyncio.create_task(stop.wait())
    first: set[asyncio.Task[Any]] = {told, *works}
    try:
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
    if stop.is_set():
        return
    ended = next(work for work in works if work.done())
    error = None if ended.cancelled() else ended.exception()
    if isinstance(error, LorryError):
        raise error
    why = "it was broken off" if ended.cancelled() else "nobody told it to" if error is None else repr(error)
    raise BackgroundEnded(f"{of}: work that it cannot be without has ended: {why}") from error


def show_failures(of: str) -> None:
    """Show the count of somebody who has had no failure yet, so that a rule can tell zero from nothing."""
    for kind in get_args(Kind):
        FAILURES.labels(of, kind)
