from __future__ import annotations

import pytest

from serving.extraction.profile import Pattern
from serving.extraction.style import MIN_TURNS, measure_style
from transcripts.transcript import Transcript, Turn


def measured(*texts: str) -> dict[str, Pattern]:
    turns = tuple(Turn(role="user", text=text) for text in texts)
    found = measure_style([Transcript(turns=turns, source_format="test")])
    return {pattern.name: pattern for pattern in found}


def test_too_few_turns_have_no_patterns() -> None:
    assert measured(*["hello there"] * (MIN_TURNS - 1)) == {}
    assert measured(*["hello there"] * MIN_TURNS)


def test_only_the_users_own_turns_are_measured() -> None:
    turns = (Turn(role="user", text="hi"), Turn(role="other", text="HELLO! How are you? :)"))
    patterns = measure_style([Transcript(turns=turns * 20, source_format="test")])
    counted = {pattern.name: pattern for pattern in patterns}
    assert counted["exclaims"].count == 0
    assert counted["starts_lower_case"].of == 20


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [
        ("starts_lower_case", "hello", "Hello"),
        ("ends_with_full_stop", "Hello.", "Hello..."),
        ("ends_without_mark", "hello", "hello!"),
        ("asks", "really? yes", "really"),
        ("exclaims", "wow! yes", "wow"),
        ("repeats_marks", "what?!", "what?"),
        ("emoji", "ok 🙂", "ok"),
        ("emoji", "ok :)", "at 10:00"),
        ("laughs", "hahaha no", "hah"),
        ("shouts", "that is GREAT", "the USA"),
    ],
)
def test_each_pattern_counts_the_turns_that_have_it(name: str, has: str, lacks: str) -> None:
    pattern = measured(*[has] * 3, *[lacks] * 9)[name]
    assert (pattern.count, pattern.of, pattern.value) == (3, 12, 0.25)
    assert "3 of 12" in pattern.text


def test_the_length_is_a_median_with_its_count() -> None:
    pattern = measured(*["one"] * 4, *["one two three"] * 3, *["a b c d e f"] * 4)["median_words"]
    assert (pattern.value, pattern.count, pattern.of, pattern.unit) == (3, 7, 11, "words")


def test_dropped_apostrophes_are_counted_among_contractions() -> None:
    pattern = measured(*["dont"] * 8, *["I'm here, it's ok"] * 4)["drops_apostrophes"]
    assert (pattern.count, pattern.of) == (8, 16)


def test_blank_turns_are_no_turns() -> None:
    assert measured(*["  \n "] * 20) == {}


@pytest.mark.parametrize(("asking", "word"), [(0, "Never"), (1, "Rarely"), (3, "Sometimes")])
def test_what_never_happened_is_not_called_rare(asking: int, word: str) -> None:
    assert measured(*["why?"] * asking, *["yes"] * (40 - asking))["asks"].text.startswith(f"{word} asks")
