"""Work on large values, done beside the event loop: on threads of its own, and in pieces.

A thread alone is not enough: one call into C, as parsing 8 MiB of JSON is, lets no other thread run until it returns.
So what is large is also worked on by Python around small calls, where others have their turn every few milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import json.scanner
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
LARGE_BYTES: Final = 64 << 10
"""What has no more is worked on at once: handing it over would take longer."""
HUGE_BYTES: Final = 1 << 20
"""What has more takes seconds, and a thread of its own, so that what takes milliseconds never waits for it."""
# Few, for all share one processor's worth of Python with the loop: more would only make it wait longer.
THREADS: Final = 2
_large = ThreadPoolExecutor(THREADS, thread_name_prefix="large")
_huge = ThreadPoolExecutor(1, thread_name_prefix="huge")


async def beside(size_bytes: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what `work` makes of a value of so many bytes: of a small one here and now, of a large one beside.

    What `work` raises rises here. Work that has begun beside goes on when nobody waits for it any more.
    """
    if size_bytes <= LARGE_BYTES:
        return work(*args, **kwargs)
    threads = _large if size_bytes <= HUGE_BYTES else _huge
    return await asyncio.get_running_loop().run_in_executor(threads, partial(work, *args, **kwargs))


def parse_json(body: bytes) -> Any:
    """Return what `json.loads` returns; of a large body, in pieces.

    Raises:
        ValueError: as `json.loads`.
        RecursionError: for what nests too deeply; `kit.json_guard` refuses it before.
    """
    if len(body) <= LARGE_BYTES:
        return json.loads(body)
    return json.loads(body, cls=_PieceByPiece)


class _PieceByPiece(json.JSONDecoder):
    """The standard library's decoder as it is without its C scanner; strings are still C's."""

    def __init__(self) -> None:
        super().__init__()
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]  # typeshed leaves it out
