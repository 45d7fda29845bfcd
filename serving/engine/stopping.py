"""What happens when vLLM is told to stop: first nobody is admitted any more, and at last nobody is left waiting.

vLLM stops its engine while its HTTP server still takes requests, and only then waits, without a bound, until each of
them is answered. Whoever waits in our queue would be handed to an engine that is gone, and whoever was handed over
just too late, or whose end the engine could no longer tell, would never be answered. So those who wait are told before,
and those whom vLLM still counts as running are told after.
The seam is private: ``tests/contract`` watches it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

_log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 5.0


def before_shutdown(engine: AsyncLLM, prepare: Callable[[], object]) -> None:
    """Run `prepare` on this event loop before the engine is shut down, from whatever thread that is asked for.

    After it, whoever the engine left without an answer gets vLLM's own error for an engine that is gone.
    """
    loop, shutdown = asyncio.get_running_loop(), engine.shutdown

    def stop(*args: Any, **options: Any) -> Any:
        _run_on(loop, prepare)
        try:
            return shutdown(*args, **options)
        finally:
            _run_on(loop, lambda: engine.output_processor.propagate_error(EngineDeadError(suppress_context=True)))

    engine.shutdown = stop


def _run_on(loop: asyncio.AbstractEventLoop, prepare: Callable[[], object]) -> None:
    if loop.is_closed() or not loop.is_running():
        return  # nobody can be waiting any more
    try:
        is_here = asyncio.get_running_loop() is loop
    except RuntimeError:
        is_here = False
    if is_here:
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
