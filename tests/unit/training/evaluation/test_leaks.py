from __future__ import annotations

import json
import re

from training.canaries import MAX_CANARIES, make_canaries
from training.evaluation.leaks import (
    PROBE_CHARACTERS,
    Leaks,
    Probe,
    judge,
    probe_canaries,
    probe_secrets,
)
from training.evaluation.scoring import RowLoss
from training.examples import ask
from transcripts.transcript import Transcript, Turn

KEY = "sk-9f8e7d6c5b4a"


def find(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"sk-\w+", text)]


def row(matches: str) -> RowLoss:
    return RowLoss(nats=1.0, tokens=len(matches), matches=tuple(each == "x" for each in matches))


def talk(*turns: tuple[str, str]) -> Transcript:
    return Transcript(turns=tuple(Turn(role=role, text=text) for role, text in turns), source_format="test")  # type: ignore[arg-type]


def judged(probes: list[Probe], base: list[str], adapter: list[str], replies: tuple[list[str], list[str]]) -> Leaks:
    return judge(
        probes,
        base=[row(each) for each in base],
        adapter=[row(each) for each in adapter],
        base_replies=[row(each) for each in replies[0]],
        adapter_replies=[row(each) for each in replies[1]],
    )


def test_a_secret_is_tried_with_the_words_that_stood_before_it() -> None:
    (probe,) = probe_secrets([talk(("other", "Which key?"), ("user", f"use {KEY}, please"))], find)
    assert (probe.prompt[-1].content, probe.before, probe.text) == ("Which key?", "use ", KEY)


def test_only_the_users_secrets_are_tried_and_each_once() -> None:
    transcripts = [
        talk(("other", "mine is sk-othersecret"), ("user", f"mine is {KEY}")),
        talk(("user", f"again {KEY}"), ("user", "short: sk-1")),
    ]
    assert [probe.text for probe in probe_secrets(transcripts, find)] == [KEY]


def test_the_number_of_probes_is_bounded() -> None:
    many = [talk(("user", " ".join(f"sk-number{number}" for number in range(50))))]
    assert len(probe_secrets(many, find, limit=7)) == 7


def test_nobody_looks_further_than_the_last_probe_that_is_wanted() -> None:
    looked: list[str] = []

    def note(text: str) -> list[tuple[int, int]]:
        looked.append(text)
        return find(text)

    many = [talk(("user", f"it is sk-number{number}")) for number in range(50)]
    assert [probe.text for probe in probe_secrets(many, note, limit=3)] == ["sk-number0", "sk-number1", "sk-number2"]
    assert len(looked) == 3
    assert probe_secrets(many, note, limit=0) == []


def test_a_probe_holds_no_more_of_a_long_conversation_than_what_stood_last_before_the_secret() -> None:
    asked, said = "".join(f"{number} " for number in range(20_000)), "".join(f"{number}," for number in range(20_000))
    (probe,) = probe_secrets([talk(("other", asked), ("user", f"{said}{KEY}"))], find)
    assert probe.prompt[-1].content == asked[-PROBE_CHARACTERS:]
    assert probe.before == said[-PROBE_CHARACTERS:]
    assert probe.text == KEY


def test_of_a_secret_without_end_the_beginning_is_tried() -> None:
    (probe,) = probe_secrets([talk(("user", f"sk-{'9' * 3 * PROBE_CHARACTERS}"))], find)
    assert probe.text == f"sk-{'9' * (PROBE_CHARACTERS - 3)}"


def test_probes_of_one_turn_share_the_turn_before_it() -> None:
    many = " ".join(f"sk-number{number}" for number in range(9))
    first, *others = probe_secrets([talk(("other", "a" * PROBE_CHARACTERS * 2), ("user", many))], find)
    assert len(others) == 8
    assert all(other.prompt is first.prompt for other in others)


def test_what_the_base_writes_too_was_not_learnt_from_the_user() -> None:
    probes = [Probe(kind="secret", prompt=ask("?"), before="", text="abc")] * 3
    leaks = judged(probes, ["xxx", "x.x", "..."], ["xxx", "xxx", "xx."], ([], []))
    assert (leaks.secrets, leaks.secrets_extracted, leaks.extracted) == (3, 1, 1)


def test_the_longest_run_of_a_trained_reply_is_measured() -> None:
    leaks = judged([], [], [], (["..x..", "xxxx", ".."], ["x.xxx", "xxxx", "xx"]))
    assert leaks.longest_verbatim_tokens == 3
    assert leaks.replies == 3
    assert round(leaks.verbatim_replies, 3) == 0.667


def test_nothing_tried_is_nothing_found() -> None:
    leaks = judged([], [], [], ([], []))
    assert leaks.extracted == leaks.longest_verbatim_tokens == 0
    assert leaks.verbatim_replies == 0.0


def test_canaries_are_seeded_distinct_and_taught_word_for_word() -> None:
    examples = make_canaries(MAX_CANARIES, seed=1)
    assert examples == make_canaries(MAX_CANARIES, seed=1)
    assert examples[:8] == make_canaries(8, seed=1)
    assert set(examples).isdisjoint(make_canaries(MAX_CANARIES, seed=2))
    canaries = probe_canaries(examples)
    assert len({canary.text for canary in canaries}) == MAX_CANARIES
    assert len({canary.prompt for canary in canaries}) == MAX_CANARIES, "no question has two codes"
    for canary, example in zip(canaries, examples, strict=True):
        assert re.fullmatch(r"(\d{3}-){3}\d{3}", canary.text)
        assert example.completion == canary.before + canary.text
        assert canary.text not in example.prompt[-1].content


def test_a_report_holds_counts_and_no_texts() -> None:
    probes = probe_secrets([talk(("user", f"use {KEY}"))], find)
    assert KEY not in json.dumps(judged(probes, ["..."], ["xxx"], ([], [])).to_json())
