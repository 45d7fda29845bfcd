"""What happens when vLLM is told to stop: nobody is admitted any more, who runs may end, and nobody is left waiting.

vLLM stops its engine while its HTTP server still takes requests, and only then waits, without a bound, until each of
them is answered. Whoever runs would be cut off, whoever waits in our queue would be handed to an engine that is gone,
and whoever was handed over just too late, or whose end the engine could no longer tell, would never be answered. So
those who wait are told before, those who run are given some seconds, and those whom vLLM still counts as running then
are told after. vLLM can wait as well (``--shutdown-timeout``), but only for what its engine has, not for who is between
our queue and the engine or is being answered.
The seam is private: ``tests/contract`` watches it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

_log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 5.0


def before_shutdown(
    engine: AsyncLLM,
    tell: Callable[[], object],
    *,
    let_end: Callable[[float], Coroutine[Any, Any, object]],
    seconds: float,
) -> None:
    """Have this event loop do things before the engine is shut down, from whatever thread that is asked for.

    After them, whoever the engine left without an answer gets vLLM's own error for an engine that is gone.

    Args:
        engine: whose shutdown is put off.
        tell: comes first.
        let_end: comes next and takes no longer than it is given; left out where the loop itself would wait for it.
        seconds: that it is given.
    """
    loop, shutdown = asyncio.get_running_loop(), engine.shutdown

    def stop(*args: Any, **options: Any) -> Any:
        _run_on(loop, tell)
        _wait_for(loop, let_end, seconds)
        try:
            return shutdown(*args, **options)
        finally:
            _run_on(loop, lambda: engine.output_processor.propagate_error(EngineDeadError(suppress_context=True)))

    engine.shutdown = stop


def _run_on(loop: asyncio.AbstractEventLoop, prepare: Callable[[], object]) -> None:
    if not _can_run(loop):
        return  # nobody can be waiting any more
    if _is_here(loop):
        prepare()
        return
    prepared = threading.Event()

    def run() -> None:
        try:
            prepare()
        finally:
            prepared.set()

    loop.call_soon_threadsafe(run)
    if not prepared.wait(_PATIENCE_SECONDS):
        _log.warning("the engine is stopped before those who wait could be told")


def _wait_for(
    loop: asyncio.AbstractEventLoop, let_end: Callable[[float], Coroutine[Any, Any, object]], seconds: float
) -> None:
    if not _can_run(loop) or _is_here(loop):
        return
    ending = asyncio.run_coroutine_threadsafe(let_end(seconds), loop)
    try:
        ending.result(seconds + _PATIENCE_SECONDS)
    except Exception:  # whatever it is, the engine was told to stop
        _log.warning("the engine is stopped without waiting for those who run", exc_info=True)
        ending.cancel()


def _can_run(loop: asyncio.AbstractEventLoop) -> bool:
    return loop.is_running() and not loop.is_closed()


def _is_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
