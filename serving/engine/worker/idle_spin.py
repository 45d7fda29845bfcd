"""How a CPU engine's worker waits for its next step: asleep, so that others have its core.

Stock vLLM's worker spins on its queue for a second after each message before it goes to sleep. On a GPU's host a core
is cheap; a CPU engine computes on the same cores that download, open and stage adapters, and on a small machine the
spinning thread takes half of them, and the interpreter from the stager's thread. Woken, it is as quick within 0.1 ms;
a step takes tens.

A wake-up can be lost: vLLM looks again after five seconds, which its spinning hides, and which without it would be
the time of a step. So nobody here sleeps for longer than two milliseconds at a time.

Which queue a worker reads is private to vLLM, so the conditions it waits on are noted as they are made;
``tests/contract/test_worker_seam.py`` watches that class. They keep spinning until `sleep_between_steps`.
"""

from __future__ import annotations

import functools
from typing import Any
from weakref import WeakSet

from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

_SPIN_SECONDS = 0.0005
_NAP_MS = 2
_noted: WeakSet[SpinCondition] = WeakSet()


def note_conditions() -> None:
    """Note every condition that is made in this process from now on; calling it again changes nothing."""
    original = SpinCondition.__init__
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def noting(condition: SpinCondition, *args: Any, **kwargs: Any) -> None:
        original(condition, *args, **kwargs)
        _noted.add(condition)

    SpinCondition.__init__ = noting


def sleep_between_steps() -> int:
    """Let this process's readers sleep as soon as there is nothing to read; returns how many there are."""
    readers = [condition for condition in _noted if condition.is_reader]
    for condition in readers:
        condition.busy_loop_s = _SPIN_SECONDS
        if not isinstance(condition.poller, _Napping):
            condition.poller = _Napping(condition.poller)
    return len(readers)


class _Napping:
    """A condition's poller that returns soon, woken or not: its caller then looks at the queue itself."""

    def __init__(self, poller: Any) -> None:
        self._poller = poller

    def poll(self, timeout: int | None = None) -> Any:
        """Wait for at most two milliseconds, or for `timeout` if that is less."""
        return self._poller.poll(timeout=_NAP_MS if timeout is None else min(timeout, _NAP_MS))
