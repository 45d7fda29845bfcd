"""What every question writer is: transcripts in, examples out, in steps that a durable job can persist between.

    estimate → begin → poll, poll, … until `state.written` → collect → discard

Every step takes the state that the one before it returned, and the same transcripts. A step that is run again with the
same state, because its process was killed before the result was kept, repeats nothing that was paid for.
`discard` is also how to give up: it stops what runs and deletes what the service keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from training.examples import Example
from training.writers.cost import Cost
from training.writers.state import WriterState
from transcripts.transcript import Transcript


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Why some pairs, or a whole request, did not become examples: a reason of a fixed set, and how many."""

    reason: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a writer wrote: examples of the kinds ``statement`` and ``negative`` in a stable order, and its cost.

    It holds the user's words: keep it where their dataset is kept. Laws: ``Written.from_json(w.to_json()) == w``.
    """

    writer: str
    examples: tuple[Example, ...]
    dropped: tuple[Dropped, ...]
    cost: Cost

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which `from_json` reads."""
        return {
            "writer": self.writer,
            "examples": [example.to_json() for example in self.examples],
            "dropped": {each.reason: each.count for each in self.dropped},
            "cost": self.cost.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild what `to_json` wrote."""
        return cls(
            writer=value["writer"],
            examples=tuple(Example.from_json(each) for each in value["examples"]),
            dropped=count_dropped(value["dropped"]),
            cost=Cost.from_json(value["cost"]),
        )


class QuestionWriter(Protocol):
    """Writes statements and negatives about the user, from the user's own turns."""

    @property
    def name(self) -> str:
        """Its name and the version of its wording, recorded in every dataset: ``extractive/1``."""

    @property
    def remote(self) -> bool:
        """Whether transcripts leave this machine."""

    async def estimate(self, transcripts: Sequence[Transcript]) -> Cost:
        """Return what writing would cost, before anything is bought.

        Raises:
            WriterUnavailable, WriterRefused: the service that counts tokens does not.
        """

    async def begin(self, transcripts: Sequence[Transcript]) -> WriterState:
        """Check that the work can be done and that it is affordable, and return its first state.

        Raises:
            WriterTooExpensive: with the estimate.
            WriterUnavailable: nothing answered; begin again later.
            WriterRefused, WriterFailed: the sample was refused, or its answer is useless.
        """

    async def poll(self, state: WriterState, transcripts: Sequence[Transcript]) -> WriterState:
        """Take the next step and return the state after it: to be kept before `poll` is called again.

        Raises:
            WriterStale: the transcripts or the settings are not those that were begun with.
            WriterUnavailable: nothing answered; poll again later with the same state.
            WriterRefused, WriterFailed: for good.
        """

    async def collect(self, state: WriterState, transcripts: Sequence[Transcript]) -> Written:
        """Return what was written; any number of times, until it is discarded.

        Raises:
            WriterStale, WriterUnavailable: as `poll`.
            WriterFailed: too little was written.
        """

    async def discard(self, state: WriterState) -> WriterState:
        """Stop what still runs and delete what the service and the spool keep.

        Call it again, later, until the state says `discarded`: a running batch ends before it can be deleted.

        Raises:
            WriterUnavailable: nothing answered; discard again later with the same state.
        """


def count_dropped(counts: Mapping[str, int]) -> tuple[Dropped, ...]:
    """Return reasons with their counts, by reason."""
    return tuple(Dropped(reason=reason, count=counts[reason]) for reason in sorted(counts) if counts[reason])
