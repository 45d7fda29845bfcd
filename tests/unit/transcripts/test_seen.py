"""The compact set tells new from known as a set does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transcripts.seen import Seen


@given(st.lists(st.text(max_size=3)))
def test_a_text_is_new_once(texts: list[str]) -> None:
    seen, known = Seen(), set[str]()
    for text in texts:
        assert seen.add(text) == (text not in known)
        known.add(text)
    assert len(seen) == len(known)


def test_it_grows_without_forgetting() -> None:
    seen = Seen()
    assert all(seen.add(f"text {number}") for number in range(10_000))
    assert not any(seen.add(f"text {number}") for number in range(10_000))
