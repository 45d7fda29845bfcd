"""Telling a process from a later one of the same pid."""

from __future__ import annotations

import psutil


def process_start(pid: int) -> float | None:
    """Return when a process started, which tells it from a later one of the same pid; None when it has ended."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
