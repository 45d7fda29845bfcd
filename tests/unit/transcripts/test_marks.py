"""Marks find whatever holds a transcript, and nothing of anybody else's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import assume, example, given
from hypothesis import strategies as st

from transcripts.continuation import without_continued
from transcripts.marks import Marks
from transcripts.transcript import Transcript, Turn

START = datetime(2026, 1, 1, tzinfo=UTC)
TURNS = st.builds(
    Turn,
    role=st.sampled_from(["user", "other"]),
    text=st.sampled_from(["a", "b", "a\nb", "a\nb\na", "b\na"]),
    time=st.sampled_from([None, START, START + timedelta(minutes=1)]),
)
FORMATS = st.sampled_from(["claude-code", "openai-messages"])
TALKS = st.builds(Transcript, turns=st.lists(TURNS, min_size=1, max_size=4).map(tuple), source_format=FORMATS)


@st.composite
def states(draw: st.DrawFn) -> tuple[Transcript, Transcript]:
    """A transcript, and a part of it from anywhere whose ends may have lost lines."""
    whole = draw(TALKS)
    start = draw(st.integers(0, len(whole.turns) - 1))
    end = draw(st.integers(start + 1, len(whole.turns)))
    first, *rest = whole.turns[start:end]
    last = rest.pop() if rest else None
    if draw(st.booleans()):
        first = Turn(role=first.role, text=first.text.rpartition("\n")[2], time=first.time)
    if draw(st.booleans()):
        grown = last or first
        cut = Turn(role=grown.role, text=grown.text.partition("\n")[0], time=grown.time)
        first, last = (first, cut) if last else (cut, None)
    turns = (first, *rest, last) if last else (first, *rest)
    return whole, Transcript(turns=turns, source_format=draw(FORMATS))


@given(st.one_of(states(), st.tuples(TALKS, TALKS)))
@example(
    (
        Transcript(turns=(Turn(role="user", text="a\nb", time=START),), source_format="openai-messages"),
        Transcript(turns=(Turn(role="user", text="a", time=START),), source_format="claude-code"),
    )
)
def test_what_holds_a_transcript_has_the_mark_that_it_is_sought_by(pair: tuple[Transcript, Transcript]) -> None:
    whole, part = pair
    assume(part.id != whole.id)
    held = without_continued([whole, part]) == [whole]
    sought = Marks.of(part, tenant="t", user="u").sought
    assert not held or sought in Marks.of(whole, tenant="t", user="u").own


@given(TALKS)
def test_nobody_else_has_the_same_marks(talk: Transcript) -> None:
    own = Marks.of(talk, tenant="t", user="u")
    for tenant, user in (("t", "v"), ("u", "t"), ("tu", "u")):
        assert not {*own.own} & {*Marks.of(talk, tenant=tenant, user=user).own}
    assert own.sought in own.own
    assert len(set(own.own)) == len(own.own)
