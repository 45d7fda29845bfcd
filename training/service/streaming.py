"""A job's events and progress as server-sent events: everything so far, then what comes, until the job has ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from kit.errors import DatabaseUnavailable
from training.jobs.job import Job
from training.jobs.jobs import Jobs
from training.service.schemas import EventView, JobView

MEDIA_TYPE = "text/event-stream"
_SILENCE_SECONDS = 15.0  # then a comment is sent, so that proxies keep the connection
_AWAY_SECONDS = 1.0
_PAGE = 500


async def stream(jobs: Jobs, job: Job, *, after: int, every_seconds: float) -> AsyncIterator[str]:
    """Yield frames: ``event`` with an id, ``progress`` without, and last ``end`` with the job as it ended.

    A client that was cut off sends the last id that it saw as ``Last-Event-ID`` and misses nothing. While the database
    does not answer, comments say so, and the stream goes on when it does.
    """
    told: dict[str, Any] | None = None
    spoke = time.monotonic()
    while True:
        try:
            job = await jobs.get(job.id)  # before its events: a job that has ended has no further ones
            events = await jobs.events(job.id, after=after, limit=_PAGE)
        except DatabaseUnavailable:
            yield ": the database does not answer; waiting for it\n\n"
            await asyncio.sleep(max(every_seconds, _AWAY_SECONDS))
            continue
        for event in events:
            after, spoke = event.id, time.monotonic()
            yield _frame("event", EventView.of(event).model_dump_json(), id=event.id)
        if len(events) == _PAGE:
            continue
        if job.progress is not None and job.progress != told:
            told = job.progress
            spoke = time.monotonic()
            yield _frame("progress", json.dumps(told))
        if job.ended:
            yield _frame("end", JobView.of(job).model_dump_json())
            return
        if time.monotonic() - spoke > _SILENCE_SECONDS:
            spoke = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(every_seconds)


def _frame(name: str, data: str, *, id: int | None = None) -> str:
    numbered = f"id: {id}\n" if id is not None else ""
    return f"{numbered}event: {name}\ndata: {data}\n\n"
