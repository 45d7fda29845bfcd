"""What is stated once although it was said in several ways."""

from __future__ import annotations

import pytest

from serving.extraction.asking.agreement import like_alike
from serving.extraction.language.splitting import split_clauses
from tests.support.extraction import extract, said, saying, search_in, texts


def alike(one: str, other: str) -> bool:
    (first,), (second,) = split_clauses(one), split_clauses(other)
    assert like_alike(first, second) == like_alike(second, first)
    return like_alike(first, second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I love knitting", "I really like knitting"),
        ("i like knitting a lot", "I enjoy knitting"),
        ("I'm a fan of rye bread", "I love rye bread!"),
        ("I hate opera", "I don't like opera"),
        ("I can't stand opera", "i dislike opera"),
    ],
)
def test_one_liking_in_two_ways_is_one(one: str, other: str) -> None:
    assert alike(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I love knitting", "I hate knitting"),
        ("I love knitting", "We love knitting"),
        ("I like cats more than dogs", "I like dogs more than cats"),
        ("I love green tea", "I love tea"),
        ("I love knitting", "I loved knitting"),
        ("My brother loves opera", "My brother enjoys opera"),  # told of somebody else, where less is understood
        ("I live in Porto", "I live in Porto"),  # no liking: the claim itself tells those that are the same
    ],
)
def test_what_differs_stays_apart(one: str, other: str) -> None:
    assert not alike(one, other)


async def test_a_liking_is_stated_once_in_its_surest_wording_with_every_quote() -> None:
    turns = ("I love knitting", "well, I really like knitting", "I enjoy knitting at night")
    engine = saying(lambda question, sample: ["I love knitting"] if question == "What do you like?" else [])
    profile = await extract(engine, search_in(*turns), transcripts=[said(*turns)])
    assert [text for text in sorted(texts(profile)) if "night" not in text] == ["I love knitting"]
    (statement,) = [each for section in profile.topics for each in section.statements if each.text == "I love knitting"]
    assert {quote.quote for quote in statement.support} == {"I love knitting", "well, I really like knitting"}
