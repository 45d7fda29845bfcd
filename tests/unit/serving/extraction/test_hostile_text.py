"""Texts made to keep a reader busy: reading takes time linear in them, so these end long before the time limit."""

from __future__ import annotations

import pytest

from serving.extraction.asking.agreement import Answer, Sample, claims_of, group_claims
from serving.extraction.asking.answers import parse_answers
from serving.extraction.asking.own_statements import find_own_statements
from serving.extraction.bank import standard_bank
from serving.extraction.corrections.matching import Prohibitions
from serving.extraction.language.clauses import Clause
from serving.extraction.language.splitting import MOST_CHARACTERS, split_clauses
from serving.extraction.language.voice import is_own_voice
from serving.extraction.language.words import read_words
from serving.extraction.profile.fact_id import fact_id
from serving.extraction.render.markdown import plain
from serving.extraction.style import measure_style
from serving.extraction.support.judge import judge
from tests.support.extraction import said

N = 200_000
HOSTILE = {
    "blanks": " " * N,
    "blanks after a word": "I like" + " " * N + "x",
    "line ends": "\n" * N,
    "tabs and line ends": "\t\n" * (N // 2),
    "one giant word": "a" * N,
    "one giant number": "7" * N,
    "apostrophes": "a'" * (N // 2),
    "typographic apostrophes": "a’" * (N // 2),
    "hyphens": "-" * N,
    "spaced hyphens": " - " * (N // 3),
    "commas": "," * N,
    "spaced commas": " , " * (N // 3),
    "full stops": "." * N,
    "ellipses": "I like... " * (N // 10),
    "question marks": "?" * N,
    "colons": "a:" * (N // 2),
    "spaced colons": "a : " * (N // 4),
    "quoting marks": ">" * N,
    "brackets": "(" * N,
    "quotation marks": '"' * N,
    "subjects without verbs": "x and i " * (N // 8),
    "subjects after commas": "x, i " * (N // 5),
    "conditions": "if i, " * (N // 6),
    "taking back": "but it was, i " * (N // 14),
    "but nothing": "but " * (N // 4),
    "but not": "but not " * (N // 8),
    "openers": "well " * (N // 5),
    "laughter": "haha" * (N // 4),
    "spaced laughter": "lol " * (N // 4),
    "capitals": "A" * N,
    "capital words": "Aaa " * (N // 4),
    "likings": "I like football and " * (N // 20),
    "denials": "not " * (N // 4),
    "emoji": "🙂" * N,
    "combining marks": "é" * (N // 2),
    "right to left": "\u202e" * N,
    "wide letters": "\uff41" * N,
    "zero width": "\u200b" * N,
    "capital I with dot": "İ" * N,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_every_reader_gets_through(text: str) -> None:
    statement = Clause("I like football", "I like football")
    list(read_words(text))
    split_clauses(text)
    is_own_voice(text)
    judge(statement, text)
    judge(statement, f"I like football. {text}")
    find_own_statements([said(text, "I love tea")], bank=standard_bank(), limit=10)
    measure_style([said(*[text[:N]] * 1, *["hello there"] * 10)])
    group_claims(claims_of([Answer(sample=Sample("interests", 0), texts=(text,))]))
    parse_answers(text)
    parse_answers(f'"{text}')
    fact_id(text)
    plain(text)
    assert not Prohibitions([]).forbid(text)


def test_no_word_is_kept_longer_than_a_word_is() -> None:
    assert max(len(word.text) for word in read_words("b" * N)) < 100


def test_of_a_very_long_turn_only_whole_sentences_of_its_beginning_are_read() -> None:
    filler = "It rains. " * (MOST_CHARACTERS // 10 + 1)
    assert judge(Clause("I like football", ""), f"I like football. {filler}").verdict == "supports"
    assert judge(Clause("I like football", ""), f"{filler} I like football.").verdict == "none"
    cut_in_two = "x" * (MOST_CHARACTERS - 16) + ". I like football if it is short"
    assert judge(Clause("I like football", ""), cut_in_two).verdict == "none"


@pytest.mark.parametrize("text", ["\0", "\ud800", "a\0b I like football", "I like \udfff football"])
def test_what_no_database_holds_is_read_without_a_fault(text: str) -> None:
    judge(Clause("I like football", ""), text)
    assert len(split_clauses(text)) <= 1
