"""How a CPU engine's processes wait for each other between steps: dozing, so that others have their core.

Stock vLLM's readers spin on their queue for a second after each message before they go to sleep. On a GPU's host a core
is cheap; a CPU engine computes on the same cores that download, open and stage adapters, and on a small machine the
spinning threads take most of them, and the interpreter from the stager's thread.

Here they spin for half a millisecond and then sleep a millisecond at a time. They are woken earlier than that by the
writer's notification; but one can be missed while nobody waits for it, so nothing rests on it: a missed one costs a
millisecond of a step that takes tens. After a second without a message they sleep as stock vLLM's do.

The class that waits is private; ``tests/contract`` watches it.
"""

from __future__ import annotations

from os import sched_yield
from time import monotonic

import zmq
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

_SPIN_SECONDS = 0.0005
_NAP_MS = 1

_sleep = SpinCondition.wait


def wait(condition: SpinCondition, timeout_ms: int | None = None) -> None:
    """Stand in for vLLM's: return when there may be something to read, or nearly at once."""
    idle_seconds = monotonic() - condition.last_read
    if idle_seconds <= _SPIN_SECONDS:
        sched_yield()
    elif idle_seconds > condition.busy_loop_s:
        _sleep(condition, timeout_ms)
    elif condition.local_notify_socket in dict(condition.poller.poll(timeout=_NAP_MS)):
        condition.local_notify_socket.recv(flags=zmq.NOBLOCK, copy=False)


def doze_between_steps() -> None:
    """Make every reader of this process wait so; calling it again changes nothing."""
    SpinCondition.wait = wait
