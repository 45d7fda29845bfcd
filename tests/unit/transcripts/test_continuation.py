"""A conversation that went on replaces what it was before, and nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcripts.continuation import without_continued
from transcripts.copies import conversations
from transcripts.importer import read_transcripts
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


def said(*turns: str, source_format: str = "claude-code") -> Transcript:
    """A transcript of turns such as ``u3 Why?``: who speaks, at which minute, and what."""
    read = (turn.split(" ", 1) for turn in turns)
    return Transcript(
        turns=tuple(
            Turn(role="user" if who[0] == "u" else "other", time=START + timedelta(minutes=int(who[1:])), text=text)
            for who, text in read
        ),
        source_format=source_format,
    )


def write_session(directory: Path, name: str, *lines: str) -> None:
    """Write a session of Claude Code with lines such as ``u3 Why?``; those that are copied keep their names."""
    written, before = [], None
    for line in lines:
        who, text = line.split(" ", 1)
        role = "user" if who[0] == "u" else "assistant"
        content = text if role == "user" else [{"type": "text", "text": text}]
        time = START + timedelta(minutes=int(who[1:]))
        message = {"role": role, "content": content, "id": f"msg_{who}"}
        written.append(
            {"parentUuid": before, "uuid": who, "type": role, "timestamp": time.isoformat(), "message": message}
        )
        before = who
    directory.mkdir(exist_ok=True)
    (directory / name).write_text("".join(json.dumps(line) + "\n" for line in written))


FIRST = ("u0 I keep bees.", "a1 How many?", "u2 Four hives.", "a3 Since when?")
RESUMED = (*FIRST, "u4 Since last spring.", "a5 Lovely.")


@pytest.mark.parametrize("names", [("a.jsonl", "b.jsonl"), ("b.jsonl", "a.jsonl")])
def test_a_session_counts_once_when_the_one_that_it_goes_on_from_was_deleted(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    first, resumed = names
    write_session(tmp_path, first, *FIRST)
    write_session(tmp_path, resumed, *RESUMED)
    together = list(read_transcripts(tmp_path))
    (tmp_path / first).unlink()
    alone = list(read_transcripts(tmp_path))
    assert alone == [said(*RESUMED)]
    for order in ([*together, *alone], [*alone, *together], [*reversed(together), *alone]):
        assert {each.id for each in without_continued(order)} == {said(*RESUMED).id}


def test_a_session_that_was_cut_off_among_its_own_words_is_known_again(tmp_path: Path) -> None:
    first, resumed = ("u0 I keep bees.", "a1 How many?", "u2 Wait."), ("u3 Four hives.", "a4 Let me look.")
    write_session(tmp_path, "a.jsonl", *first)
    write_session(tmp_path, "b.jsonl", *first, *resumed)
    together = list(read_transcripts(tmp_path))
    assert together == [said(*first), said(*resumed)]
    write_session(tmp_path, "b.jsonl", *first, *resumed, "a5 Here.")
    (tmp_path / "a.jsonl").unlink()
    alone = list(read_transcripts(tmp_path))
    assert alone == [said("u0 I keep bees.", "a1 How many?", "u2 Wait.\nFour hives.", "a4 Let me look.\nHere.")]
    assert without_continued([*together, *alone]) == alone


def test_of_sessions_that_went_different_ways_each_is_kept_and_both_are_one_conversation() -> None:
    one, two = said(*FIRST, "u4 Since spring."), said(*FIRST[:2], "u6 Five by now.")
    other = said("u10 I keep bees.", "a11 How many?")
    assert without_continued([one, two, other]) == [one, two, other]
    assert conversations([one, other, two]) == [[one, two], [other]]


def test_what_only_looks_like_a_part_is_kept() -> None:
    whole = said(*RESUMED)
    others = [
        said("u2 Four hives.", "u4 Since last spring."),  # something else was said between
        said("u2 Four hives.", "a3 Since"),
        said("a2 Four hives.", "u7 Right."),
        said("u7 Four hives.", "a8 Since when?"),
        said("u4 spring.", "a5 Lovely."),
    ]
    assert without_continued([whole, *others]) == [whole, *others]
    untimed = [talk("a", "b", "c", timed=False), talk("b", "c", timed=False, roles=("other", "user"))]
    assert without_continued(untimed) == untimed
    assert conversations(untimed) == [[each] for each in untimed]


def test_formats_that_copy_nothing_may_have_times_of_a_day() -> None:
    """A greeting at midnight ties nobody's conversations together."""
    greeted = [said("u0 hi", f"a0 Hello {number}", source_format="openai-messages") for number in range(3)]
    part = said("a0 Hello 1", "u0 bye", source_format="openai-messages")
    assert without_continued([*greeted, part]) == [*greeted, part]
    assert conversations([*greeted, part]) == [[each] for each in (*greeted, part)]


MESSAGES = tuple(Turn(role="user" if n % 2 else "other", time=START, text=f"{n}") for n in range(6))


@given(st.lists(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=4).map(tuple), max_size=8), st.randoms())
def test_what_is_left_depends_on_no_order_and_shares_nothing_across_conversations(
    drawn: list[tuple[Turn, ...]], random: Random
) -> None:
    given_ = [Transcript(turns=turns, source_format="claude-code") for turns in drawn]
    left = without_continued(given_)
    shuffled = [*given_]
    random.shuffle(shuffled)
    assert {each.id for each in without_continued(shuffled)} == {each.id for each in left}
    assert {turn for each in left for turn in each.turns} == {turn for each in given_ for turn in each.turns}
    groups = conversations(left)
    assert sorted(each.id for group in groups for each in group) == sorted(each.id for each in left)
    assert {frozenset(each.id for each in group) for group in groups} == {
        frozenset(each.id for each in group) for group in conversations([*reversed(left)])
    }
    turns = [turn for group in groups for turn in {turn for each in group for turn in each.turns}]
    assert len(turns) == len(set(turns))
