"""Calls about trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import httpx

from lorry.client.calls.call import PAGE_ROWS, Call, Page, given, model, page, rows, segment, stream, user_path
from lorry.client.results import Training, TrainingDetails, TrainingEntry

Verb = Literal["cancel", "pause", "resume", "retry"]
_PATH = "/v1/trainings"


def submit(user: str, *, adapter: str | None, settings: Mapping[str, float] | None, why: str) -> Call[Training]:
    """Queue a training."""
    body = {"why": why} | given(adapter=adapter, settings=None if settings is None else dict(settings))
    return Call(method="POST", path=f"{user_path(user)}/trainings", json=body, read=model(Training))


def list_page(*, user: str | None, states: Sequence[str], cursor: str | None) -> Call[Page[Training]]:
    """Read one page of the tenant's trainings."""
    params = given(user_id=user, cursor=cursor, state=list(states) or None, limit=PAGE_ROWS)
    return Call(method="GET", path=_PATH, params=params, read=page(Training, "trainings"))


def get(training_id: str) -> Call[TrainingDetails]:
    """Read one training."""
    return Call(method="GET", path=_one(training_id), read=model(TrainingDetails))


def steer(training_id: str, verb: Verb) -> Call[Training]:
    """End a training, have it wait or go on, or try it again."""
    return Call(method="POST", path=f"{_one(training_id)}/{verb}", read=model(Training))


def events_page(training_id: str, *, after: int) -> Call[Page[TrainingEntry]]:
    """Read some of what has happened to a training."""

    def read(response: httpx.Response) -> Page[TrainingEntry]:
        found = rows(TrainingEntry, response.json()["events"])
        return Page(items=found, cursor=str(found[-1].id) if found else None)

    return Call(method="GET", path=f"{_one(training_id)}/events", params={"after": after}, read=read)


def watch(training_id: str, *, after: int) -> Call[None]:
    """Open the stream of a training's events."""
    return stream(f"{_one(training_id)}/events", params={"after": after}, accept="text/event-stream")


def _one(training_id: str) -> str:
    return f"{_PATH}/{segment(training_id, field='training_id')}"
