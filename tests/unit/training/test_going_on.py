"""A conversation that was imported again after it had gone on counts once in a dataset."""

from __future__ import annotations

from training.config import DatasetConfig
from training.preparation import prepare
from transcripts.transcript import Role, Transcript, Turn


def talk(number: int, turns: int) -> Transcript:
    roles: tuple[Role, Role] = ("user", "other")
    said = tuple(Turn(role=roles[n % 2], text=f"conversation {number}, turn {n}") for n in range(turns))
    return Transcript(turns=said, source_format="chatgpt")


def test_no_earlier_state_stands_on_either_side_of_the_split() -> None:
    last = [talk(number, 8) for number in range(12)]
    earlier = [talk(number, turns) for number in range(12) for turns in (2, 5)]
    alone = prepare(last, config=DatasetConfig())
    together = prepare([*earlier, *last], config=DatasetConfig())
    assert together == alone
    assert {each.id for each in (*together.kept, *together.held)} == {each.id for each in last}
