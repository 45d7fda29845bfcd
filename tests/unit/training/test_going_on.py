"""A conversation that was imported again after it had gone on counts once in a dataset."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

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


def session(number: int, turns: range) -> Transcript:
    """A stretch of a session of Claude Code, in which every message has its time."""
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
    said = tuple(
        Turn(role=("user", "other")[n % 2], text=f"session {number}, turn {n}", time=start + timedelta(minutes=n))
        for n in turns
    )
    return Transcript(turns=said, source_format="claude-code")


def test_a_session_imported_in_parts_and_then_whole_counts_once() -> None:
    whole = [session(number, range(8)) for number in range(12)]
    parts = [session(number, part) for number in range(12) for part in (range(5), range(5, 8))]
    alone = prepare(whole, config=DatasetConfig())
    assert prepare([*parts, *whole], config=DatasetConfig()) == alone
    assert prepare([*reversed(whole), *reversed(parts)], config=DatasetConfig()) == alone


def test_sessions_that_share_messages_stand_on_one_side_of_the_split() -> None:
    one = [session(number, range(6)) for number in range(12)]
    two = [session(number, range(4, 9)) for number in range(12)]
    for seed in range(8):
        config = DatasetConfig(seed=seed, held_out_share=0.4)
        prepared = prepare([*one, *two], config=config)
        kept, held = ({turn for each in side for turn in each.turns} for side in (prepared.kept, prepared.held))
        assert kept
        assert held
        assert not kept & held
        assert prepare([*reversed(one), *reversed(two)], config=config) == prepared
