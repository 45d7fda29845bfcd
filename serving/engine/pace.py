"""How much one step of the engine may compute, so that a live request never waits long for a step to end.

A step ends when all its tokens are computed, and a newcomer's prompt is computed in the next. While only batch work
runs, steps as large as the engine has them are best. While live requests come, each of them waits for the step that
runs and then for its own. So the step that runs has room for the next token of everybody who is answering and for no
more than a few tokens of batch prompts; and in a live request's own, batch prompts stand aside.

Live requests come in bursts, so they are expected for some seconds after the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic

EXPECT_LIVE_SECONDS = 10.0
MOST_STEPS_ASIDE = 4  # in a row; batch requests that never get on would hold their slots and seats for nothing


@dataclass(frozen=True, slots=True)
class Work:
    """What one admitted request still needs.

    Attributes:
        tokens: that could be computed of it now, up to its next answer token.
        answering: it has been given its first token; what it lacks is not of its prompt.
        running: it has been computed in part; else it waits for its first step.
    """

    live: bool
    answering: bool
    running: bool
    tokens: int

    @property
    def is_live_prompt(self) -> bool:
        """Say whether a part of a live request's prompt could be computed."""
        return self.live and not self.answering and self.tokens > 0


@dataclass(frozen=True, slots=True)
class Step:
    """The bounds of one step.

    Attributes:
        tokens: that are computed in it, at most.
        batch_prompts: of batch prompts some may be computed in it; else those that have begun wait, and none begins.
    """

    tokens: int
    batch_prompts: bool = True


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
        self._steps_aside = 0

    def step(self, works: Iterable[Work], *, most: int) -> Step:
        """Return the next step's bounds; `most` are the tokens that a step ever has."""
        there = list(works)
        now = self._clock()
        if any(work.live for work in there):
            self._expected_until = now + EXPECT_LIVE_SECONDS
        if now >= self._expected_until:
            return Step(most)
        if self._steps_aside < MOST_STEPS_ASIDE and any(work.is_live_prompt for work in there):
            self._steps_aside += 1
            return Step(most, batch_prompts=False)
        self._steps_aside = 0
        before = sum(work.tokens for work in there if work.answering or (work.live and work.running))
        return Step(min(most, before + self._batch_prompt_tokens))

    def stood_aside_in_vain(self) -> None:
        """Hear that in the last step batch prompts stood aside for nobody: there was no room for a live one."""
        self._steps_aside = MOST_STEPS_ASIDE
