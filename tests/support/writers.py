"""Conversations to write about, and a writer driven as a durable job would: its state through JSON at every step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr

from training.writers.settings import WriterSettings
from training.writers.state import WriterState
from training.writers.writer import QuestionWriter
from transcripts.transcript import Transcript, Turn

THINGS = ("trees", "jazz", "maps", "tea", "snow", "bread", "stars", "boats", "chalk", "clocks", "salt", "wool")
_MOODS = ("quietly", "gladly", "slowly", "often", "rarely")


def conversations(count: int = 24, *, secret: str = "") -> list[Transcript]:
    """Conversations of one made person, about sixty of their own words each."""
    return [
        Transcript(
            turns=tuple(
                turn
                for part in range(4)
                for turn in (
                    Turn(
                        role="other", text=f"And what about {THINGS[(number + part) % len(THINGS)]}, number {number}?"
                    ),
                    Turn(role="user", text=_said(number, part) + (secret if part == 0 else "")),
                )
            ),
            source_format="test",
        )
        for number in range(count)
    ]


def _said(number: int, part: int) -> str:
    thing = THINGS[(number + part) % len(THINGS)]
    mood = _MOODS[(number * 3 + part) % len(_MOODS)]
    return f"I {mood} think of {thing} when it is {number} past {part + 7}, and then I make a list of {thing} to keep"


def settings(url: str, **changed: Any) -> WriterSettings:
    """Settings of an impatient writer at a local service."""
    values: dict[str, Any] = {
        "writer_url": url,
        "writer_api_key": SecretStr("key-for-tests-only"),
        "writer_poll_seconds": 0.001,
        "writer_timeout_seconds": 5,
        "writer_longest_pause_seconds": 0.05,
    }
    return WriterSettings(**{**values, **changed})


async def finish(
    writer: QuestionWriter, state: WriterState, kept: Sequence[Transcript], *, steps: int = 60
) -> WriterState:
    """Poll until everything is written; every state goes through its JSON form."""
    for _ in range(steps):
        if state.written:
            return state
        state = again(await writer.poll(state, kept))
    raise AssertionError(f"not written after {steps} steps: {state.phase}, {state.progress}")


def again(state: WriterState) -> WriterState:
    """The state as another process reads it."""
    return WriterState.from_json(json.loads(json.dumps(state.to_json())))
