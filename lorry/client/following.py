"""Streams that go on where they broke off: what each has heard, and from where it is asked for again."""

from __future__ import annotations

import json
from typing import Protocol, TypeVar

from lorry.client.calls import extractions, trainings
from lorry.client.calls.call import Call
from lorry.client.errors import NotAnswered, NotUnderstood, refusal
from lorry.client.events import EventReader
from lorry.client.results import ExtractionResult, TrainingEvent

T_co = TypeVar("T_co", covariant=True)
_GONE = "batch-not-found"


class Reader(Protocol[T_co]):
    """Reads one stream over as many connections as it takes."""

    def begin(self) -> Call[None]:
        """Return the call that opens the stream after what was heard."""

    def feed(self, line: str) -> T_co | None:
        """Return what a line ends; None while there is nothing. What the server says went wrong is raised."""

    @property
    def ended(self) -> bool:
        """Whether the last thing was heard: how the connection ends does not matter any more."""

    def close(self) -> None:
        """Take in that the server has closed the stream; raise NotAnswered when that was too early."""


class ResultReader:
    """Reads the results of a batch; `after` is the last one's `sequence`."""

    def __init__(self, extraction_id: str, *, after: int, follow: bool) -> None:
        """Begin after a result; with `follow`, wait for those to come."""
        self._id = extraction_id
        self._follow = follow
        self.after = after

    def begin(self) -> Call[None]:
        """Return the call for what comes after the last result."""
        return extractions.results(self._id, after=self.after, follow=self._follow)

    def feed(self, line: str) -> ExtractionResult | None:
        """Return the result on a line.

        Raises:
            NotFound, Unavailable: when the line says why there are no more.
            NotUnderstood: when it is no result.
        """
        if not line.strip():
            return None
        try:
            told = json.loads(line)
            if "sequence" not in told:
                raise _broken(told["error"])
            result = ExtractionResult.model_validate(told)
        except (ValueError, KeyError, TypeError) as exc:
            raise NotUnderstood("a line of the results is none that this client can read") from exc
        self.after = result.sequence
        return result

    @property
    def ended(self) -> bool:
        """Return False: no result says that it is the last."""
        return False

    def close(self) -> None:
        """Take in that there are no more."""


class TrainingReader:
    """Reads the events of a training; `after` is the last one's id."""

    def __init__(self, training_id: str, *, after: int) -> None:
        """Begin after an event."""
        self._id = training_id
        self._reader = EventReader()
        self.ended = False
        self.after = after

    def begin(self) -> Call[None]:
        """Return the call for what comes after the last event."""
        self._reader = EventReader()
        return trainings.watch(self._id, after=self.after)

    def feed(self, line: str) -> TrainingEvent | None:
        """Return the event that a line ends.

        Raises:
            Refused, NotAnswered: as `EventReader` does.
        """
        if (event := self._reader.feed(line)) is None:
            return None
        number = int(event.id) if event.id.isdecimal() else None
        self.after = number or self.after
        self.ended = event.name == "end"
        return TrainingEvent(name=event.name, data=event.data, id=number)

    def close(self) -> None:
        """Take in that there are no more.

        Raises:
            NotAnswered: when the training's end was not told.
        """
        if not self.ended:
            raise NotAnswered("the stream of the training's events ended before the training")


def _broken(error: dict[str, str]) -> Exception:
    status = 404 if error["code"] == _GONE else 503
    return refusal(status, {"type": error["code"], "detail": error["message"]})
