"""A dataset as a person reviews it: every pair under the name that decisions about it use, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from training.curation import Decision, edit
from training.dataset import Dataset
from training.errors import CurationInvalid
from training.examples import Example
from training.quality.report import QualityReport

Status = Literal["kept", "edited", "dropped", "held_out"]
MIN_ID = 4


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One pair; `id` names it as it was written, whatever it was edited into.

    `example` is what the dataset has of it, or had before it was dropped; `written` differs from it when it was edited.
    `base_loss` is how little the base would say `example` by itself, in nats a token; None where it was not asked.
    """

    id: str
    status: Status
    example: Example
    written: Example
    decision: Decision | None = None
    base_loss: float | None = None

    @property
    def question(self) -> str:
        """The last message of its prompt."""
        return self.example.prompt[-1].content

    def to_json(self) -> dict[str, Any]:
        """Return the pair as scripts read it."""
        example = self.example
        shown: dict[str, Any] = {
            "id": self.id,
            "status": self.status,
            "kind": example.kind,
            "topic": example.topic,
            "verdict": example.answer,
            "context": [{"role": message.role, "content": message.content} for message in example.prompt[:-1]],
            "question": self.question,
            "completion": example.completion,
            "base_loss": self.base_loss,
            "transcript_id": example.transcript_id,
            "turn_index": example.turn_index,
        }
        if self.status == "edited":
            shown["written"] = {"question": self.written.prompt[-1].content, "completion": self.written.completion}
        if self.decision is not None:
            shown["decided"] = {"by": self.decision.by, "at": self.decision.at}
        return shown


def pairs_of(dataset: Dataset, report: QualityReport | None = None) -> list[Pair]:
    """Return the training pairs in their order, then what was dropped, then what is held out.

    The dataset's `report` says how the base scored them.
    """
    losses = report.losses if report else {}
    return [
        replace(pair, base_loss=losses.get(pair.example.key))
        for pair in (*_trained(dataset), *_dropped(dataset), *_held_out(dataset))
    ]


def find_pair(pairs: Sequence[Pair], name: str) -> Pair:
    """Return the pair whose id begins with `name`.

    Raises:
        CurationInvalid: none does, or several do, or `name` is too short to tell.
    """
    if len(name) < MIN_ID:
        raise CurationInvalid(f"{name!r} is too short: give at least {MIN_ID} characters of a pair's id", field=name)
    found = {pair.id: pair for pair in pairs if pair.id.startswith(name)}
    if len(found) != 1:
        how_many = "no pair" if not found else f"{len(found)} pairs"
        raise CurationInvalid(f"{how_many} of the dataset has an id that begins with {name}", field=name)
    return next(iter(found.values()))


def _trained(dataset: Dataset) -> Iterator[Pair]:
    originals = {}
    for written in dataset.set_aside:
        decision = dataset.curation.decisions.get(written.key)
        if decision is not None and decision.action == "edit":
            edited = edit(written, question=decision.question, completion=decision.completion)
            originals[edited.key] = written, decision
    for example in dataset.train:
        if example.key in originals:
            written, decision = originals[example.key]
            yield Pair(id=written.key, status="edited", example=example, written=written, decision=decision)
        else:
            yield Pair(id=example.key, status="kept", example=example, written=example)


def _dropped(dataset: Dataset) -> Iterator[Pair]:
    for written in dataset.set_aside:
        decision = dataset.curation.decisions.get(written.key)
        if decision is not None and decision.action == "drop":
            yield Pair(id=written.key, status="dropped", example=written, written=written, decision=decision)


def _held_out(dataset: Dataset) -> Iterator[Pair]:
    for example in dataset.held_out:
        yield Pair(id=example.key, status="held_out", example=example, written=example)
