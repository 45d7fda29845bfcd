"""A conversation that went on replaces what it was before, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from transcripts.continuation import without_continued
from transcripts.transcript import Role, Transcript, Turn

START = datetime(2026, 1, 1, tzinfo=UTC)


def talk(*texts: str, timed: bool = True, roles: tuple[Role, ...] = ("user", "other")) -> Transcript:
    turns = tuple(
        Turn(role=roles[index % 2], text=text, time=START + timedelta(minutes=index) if timed else None)
        for index, text in enumerate(texts)
    )
    return Transcript(turns=turns, source_format="chatgpt")


def test_earlier_states_are_left_out_whatever_the_order() -> None:
    states = [talk(*"abcdef"[: length + 1]) for length in range(6)]
    other = talk("a", "x")
    assert without_continued([*states, other]) == [states[-1], other]
    assert without_continued([other, *reversed(states)]) == [other, states[-1]]


def test_a_last_turn_may_have_grown_by_a_line_where_its_time_is_known() -> None:
    before, after = talk("a", "Let me look."), talk("a", "Let me look.\nDone.", "Thanks")
    assert without_continued([before, after]) == [after]
    untimed = [talk("a", "Let me look.", timed=False), talk("a", "Let me look.\nDone.", timed=False)]
    assert without_continued(untimed) == untimed
    longer = [talk("a", "hi"), talk("a", "history")]
    assert without_continued(longer) == longer


def test_turns_of_another_role_or_time_are_another_conversation() -> None:
    one = talk("a", "b")
    others = [talk("a", "b", "c", roles=("other", "user")), talk("a", "b", "c", timed=False)]
    assert without_continued([one, *others]) == [one, *others]


@given(st.lists(st.lists(st.sampled_from(["a", "b", "ab", "a\nb"]), min_size=1, max_size=4).map(tuple), max_size=8))
def test_nothing_that_was_said_is_lost(said: list[tuple[str, ...]]) -> None:
    given_ = [talk(*texts, timed=False) for texts in said]
    left = without_continued(given_)
    for transcript in given_:
        length = len(transcript.turns)
        assert any(other.turns[:length] == transcript.turns for other in left)
    for one in left:
        assert not any(other != one and other.turns[: len(one.turns)] == one.turns for other in left)
