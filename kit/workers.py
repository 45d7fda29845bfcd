"""What processes that work queues off do alike: an identity that no other has, signs of life, pauses."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import psutil

SIGNS_PER_LEASE = 4
"""How often within its lease a worker shows that it lives."""


def host_name() -> str:
    """Return this machine's name, cut to what an id may be long; what a worker is called unless told otherwise."""
    return socket.gethostname()[:100] or "worker"


def identify_process() -> str:
    """Name this process so that no other on this machine, ever, has the same name."""
    return f"{os.getpid()}:{psutil.Process().create_time()}"


def has_ended(boot: str, *, host: str) -> bool:
    """Say whether the process that `identify_process` named runs no more for certain: only its machine can tell."""
    if host != socket.gethostname():
        return False
    pid, _, started = boot.partition(":")
    try:
        return str(psutil.Process(int(pid)).create_time()) != started
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, ValueError):
        return False


def backoff(attempts: int, *, base_seconds: float, max_seconds: float) -> timedelta:
    """Return how long to wait after the n-th failure in a row: doubled each time, up to a limit."""
    return timedelta(seconds=min(max_seconds, base_seconds * 2.0 ** min(max(attempts - 1, 0), 30)))
