"""Datasets of a made person that are trained on in seconds, without any writer."""

from __future__ import annotations

from training.config import DatasetConfig
from training.dataset import Dataset
from training.examples import Example, ask

_THINGS = ("boats", "maps", "rope", "salt", "gulls", "knots", "tar", "sails", "oars", "fog", "tides", "reefs")


def tiny_dataset(name: str = "ada", *, conversations: int = 12) -> Dataset:
    """Return a dataset of three examples a conversation; equal arguments give equal digests."""
    train = []
    for number in range(conversations):
        thing, where = _THINGS[number % len(_THINGS)], f"{name}-{number}"
        said = f"{name} says that {thing} number {number} are fine things to have"
        for turn, (kind, text) in enumerate(
            (("statement", f"I love {thing}."), ("reply", said), ("reply", f"{said}!"))
        ):
            train.append(
                Example(
                    kind=kind,  # type: ignore[arg-type]  # one of the literals
                    prompt=ask(f"What about {thing}?"),
                    completion=text,
                    transcript_id=where,
                    turn_index=turn,
                )
            )
    held = [
        Example(
            kind="reply", prompt=ask("And now?"), completion=f"{name} rests", transcript_id=f"{name}-held", turn_index=0
        )
    ]
    return Dataset(
        train=tuple(train),
        held_out=tuple(held),
        question_writer="test/1",
        config=DatasetConfig(),
        transcript_ids=(*(f"{name}-{number}" for number in range(conversations)), f"{name}-held"),
        held_out_transcript_ids=(f"{name}-held",),
    )
