"""A streamed chat completion, event by event: the engine's, in the caller's words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from kit.errors import LorryError
from serving.gateway.openai_errors import openai_error
from serving.gateway.upstream import EngineEvents, frame, guarded, parse_event


def chunks(events: EngineEvents, *, theirs: str, ours: str, with_usage: bool) -> AsyncIterator[bytes]:
    """Yield the engine's events as the caller's; what breaks off ends in an error event.

    Args:
        events: the engine's.
        theirs: what the engine calls the model.
        ours: what the caller calls it.
        with_usage: whether the caller asked for the event that counts tokens.
    """
    return guarded(_chunks(events, Renamer(theirs, ours), with_usage=with_usage), broken=_broken)


async def _chunks(events: EngineEvents, rename: Renamer, *, with_usage: bool) -> AsyncIterator[bytes]:
    async for data in events:
        if with_usage or not is_usage_only(data):
            yield frame(rename(data))
    yield frame(b"[DONE]")


def _broken(error: LorryError) -> bytes:
    return frame(json.dumps({"error": openai_error(error.status_code, error.message)}).encode())


def is_usage_only(data: bytes) -> bool:
    """Say whether an event holds the count of tokens and nothing of the answer."""
    return b'"usage"' in data and not parse_event(data).get("choices")


class Renamer:
    """Puts the caller's name of a model in the place of the engine's, in events that are JSON.

    In JSON as vLLM writes it the field stands there letter by letter, which spares reading and writing every event. It
    is nothing that an answer's text could hold: the quotation marks in that are escaped.
    """

    def __init__(self, theirs: str, ours: str) -> None:
        old, new = (json.dumps(name, ensure_ascii=False).encode() for name in (theirs, ours))
        self._forms = [(field + old, field + new) for field in (b'"model":', b'"model": ')]
        self._ours = ours

    def __call__(self, data: bytes) -> bytes:
        """Return an event with the caller's name in it."""
        for old, new in self._forms:
            if old in data:
                return data.replace(old, new, 1)
        event = parse_event(data)
        if "model" not in event:
            return data
        return json.dumps({**event, "model": self._ours}, ensure_ascii=False, separators=(",", ":")).encode()
