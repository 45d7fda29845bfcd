"""Pasted passages are cut out by their form; in doubt it is what the user wrote."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcripts.pasted import without_pasted

TRACEBACK = """Traceback (most recent call last):
  File "/app/a.py", line 3, in <module>
    main()
ValueError: nothing here"""
LOG = """2026-01-02 10:11:12 INFO starting
2026-01-02 10:11:13 WARN slow
2026-01-02 10:11:14 ERROR gone"""
PYTHON = """def area(r):
    return 3.14 * r * r

import math
x = area(2)
print(x)"""
JAVASCRIPT = """const a = 1;
function f(x) {
  return x + a;
}"""
DIFF = """diff --git a/x b/x
--- a/x
+++ b/x
@@ -1 +1 @@"""
QUOTE = """> They said that this
> was the best of all
> bees"""

PASTED = {
    "a fence": "```python\nx = 1\n```",
    "a fence of tildes": "~~~\nx = 1\n~~~",
    "a longer fence around a shorter one": "````\n```\nx\n```\n````",
    "a fence that is never closed": "```\nx = 1\ny = 2",
    "a traceback": TRACEBACK,
    "a log": LOG,
    "code without a fence": JAVASCRIPT,
    "a diff": DIFF,
    "a quote": QUOTE,
    "a long quote on one line": "> " + "they said so " * 20,
    "a dump": "QUJD" * 200,
}
OWN = {
    "prose": "I keep bees. There are twelve hives; the oldest is from 1999.\nDo you?",
    "a short quote": "> any idea?\nNo, sorry.",
    "inline code": "call `f(x)` and then ```g(x)``` please",
    "a list": "1. buy wood\n2. build hives\n- paint them\n* wait",
    "one line of a log": "it said ERROR: gone\nERROR: gone\nwhat now?",
    "an indented poem": "Roses\n  are red\n    and so\n      am I",
    "times": "10:30 coffee\n11:00 bees\n12:00 lunch",
    "a sum": "a = 3\nso b is 4",
    "a long sentence": "bee " * 400,
    "let us": "let me see\nlet us go (or not)\nfor you, dear\nimport duty is high",
}


@pytest.mark.parametrize("passage", PASTED.values(), ids=PASTED.keys())
def test_a_pasted_passage_is_cut_out_and_what_is_around_it_kept(passage: str) -> None:
    text, passages = without_pasted(f"What is this?\n{passage}")
    assert (text, passages) == ("What is this?", 1)
    assert without_pasted(passage) == ("", 1)


@pytest.mark.parametrize("text", OWN.values(), ids=OWN.keys())
def test_what_the_user_wrote_is_kept_as_it_is(text: str) -> None:
    assert without_pasted(text) == (text, 0)


def test_what_follows_a_passage_is_kept() -> None:
    text, passages = without_pasted(f"Why?\n\n```\nx\n```\n\nIt worked.\n{LOG}\nAnd now?\n{PYTHON}\nThanks!")
    assert (text, passages) == ("Why?\n\nIt worked.\nAnd now?\nThanks!", 3)


@given(st.text())
def test_cutting_twice_changes_nothing_more_of_a_text_without_passages(text: str) -> None:
    own, passages = without_pasted(text)
    assert passages or own == text
    assert len(own) <= len(text)


@pytest.mark.parametrize(
    "unit", ["`", "```\n", ">", "> a\n", "at a.", "<a ", "x = ", "(", "2026-01-02 10:11\n", "a;\n", "\n"]
)
def test_no_text_takes_more_than_linear_time(unit: str) -> None:
    def seconds(size: int) -> float:
        text = "ERROR: x" + unit * (size // len(unit))
        started = time.thread_time()
        without_pasted(text)
        return time.thread_time() - started

    short, long = seconds(50_000), seconds(400_000)
    assert long < 24 * short + 0.1, (short, long)
