"""How much one step of the engine may compute, so that a live request never waits long for a step to end.

A step ends when all its tokens are computed, and a newcomer's prompt is computed in the next. While only batch work
runs, steps as large as the engine has them are best. While live requests come, each of them waits for the step that
runs and then for its own: so a step then has room for whatever live requests lack, for the next token of everybody who
is answering, and for no more than a few tokens of batch prompts.

Live requests come in bursts, so they are expected for some seconds after the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic

EXPECT_LIVE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Work:
    """What one admitted request still needs.

    Attributes:
        tokens: that it lacks before its next answer token is there, that one included.
        answering: it has been given its first token; what it lacks is not of its prompt.
        running: it has been computed in part; else it waits for its first step.
    """

    live: bool
    answering: bool
    running: bool
    tokens: int


@dataclass(frozen=True, slots=True)
class Step:
    """The bounds of one step.

    Attributes:
        tokens: that are computed in it.
        tokens_each: that are computed in it of one request; None = as many as it lacks.
    """

    tokens: int
    tokens_each: int | None = None


class Pace:
    """Sets the bounds of each step by who is there."""

    def __init__(self, *, batch_prompt_tokens: int, clock: Callable[[], float] = monotonic) -> None:
        """Begin with no live request expected.

        Args:
            batch_prompt_tokens: of batch prompts, in a step while live requests are expected.
            clock: seconds.
        """
        self._batch_prompt_tokens = batch_prompt_tokens
        self._clock = clock
        self._expected_until = float("-inf")

    def step(self, works: Iterable[Work], *, most: int) -> Step:
        """Return the next step's bounds; `most` are the tokens that a step ever has."""
        there = list(works)
        now = self._clock()
        if any(work.live for work in there):
            self._expected_until = now + EXPECT_LIVE_SECONDS
        if now >= self._expected_until:
            return Step(most)
        needed = sum(work.tokens for work in there if work.live or work.answering)
        tokens = min(most, needed + self._batch_prompt_tokens)
        return Step(tokens, tokens_each=self._batch_prompt_tokens if self._in_the_way(there) else None)

    def _in_the_way(self, works: list[Work]) -> bool:
        """Say whether a batch prompt that has begun would take what a live newcomer needs: whoever runs comes first."""
        newcomer = any(work.live and not work.running for work in works)
        begun = (work for work in works if work.running and not work.live and not work.answering)
        return newcomer and any(work.tokens > self._batch_prompt_tokens for work in begun)
