from __future__ import annotations

import pytest

from serving.extraction.language.clauses import Clause
from serving.extraction.language.splitting import split_clauses
from serving.extraction.support.judge import judge


def clause(text: str) -> Clause:
    (found,) = split_clauses(text)
    return found


@pytest.mark.parametrize(
    ("statement", "turn"),
    [
        ("I like football", "I like football"),
        ("I like football", "i really like football!"),
        ("I like football.", "Well, I actually like football, what about you?"),
        ("I don't like cats", "i dont like cats"),
        ("I do not like cats", "No, I don't like cats."),
        ("I can't stand rain", "I cant stand rain lol"),
        ("I'm from Asia", "well I'm from Asia, by the way."),
        ("I live in Utah", "haha yeah i live in utah, you?"),
        ("I love hiking", "I love hiking and biking"),
        ("I love dogs", "I love the dog"),
        ("I have a dog", "I have a dog and a cat"),
        ("My brother plays guitar", "So my brother plays the guitar"),
        ("My favorite color is blue", "Hi! My favorite color is blue. And yours?"),
        ("I used to smoke cigars", "I used to smoke cigars"),
        ("I would love to visit Japan", "Haha I would love to visit Japan!"),
        ("I never eat meat", "I never eat meat."),
        ("I’ve visited Rome", "ive visited Rome"),
    ],
)
def test_the_same_said_by_the_person_supports_a_statement(statement: str, turn: str) -> None:
    assert judge(clause(statement), turn).verdict == "supports"


@pytest.mark.parametrize(
    ("statement", "turn"),
    [
        ("I like football", "do you like football?"),
        ("I like football", "I like football?"),
        ("I like football", "You like football"),
        ("I like football", "My brother likes football"),
        ("I like football", "My brother thinks I like football"),
        ("I like football", "I would like football"),
        ("I like football", "If I like football I will tell you"),
        ("I like football", "Maybe I like football"),
        ("I like football", "I wish I liked football"),
        ("I hate football", "I don't think I hate football"),
        ("I hate my brother", "I hate my brother's dog"),
        ("I have a dog", "I used to have a dog"),
        ("I have a dog", "I want a dog"),
        ("I have a dog", "I have a dog allergy"),
        ("I have a dog", "I don't have a dog"),
        ("I am a doctor", "I have a doctor"),
        ("I am a teacher", "I was a teacher"),
        ("I moved to Utah", "I moved from Utah"),
        ("I live in Utah", "I live near Utah"),
        ("I work with children", "I work without children"),
        ("I worked at Google", "I work at Google"),
        ("I have two dogs", "I have three dogs"),
        ("I love Paris", "I would love to see Paris"),
        ("I eat meat", "I never eat meat"),
        ("I eat meat", "I hardly eat meat"),
        ("I like pizza", "I like pizza if it's vegan"),
        ("I like vegetables", "I like most vegetables"),
        ("I play chess", "I play chess badly"),
        ("I play chess", "The weather is nice"),
        ("I like it", "I like it"),
        ("I think so", "I think so"),
    ],
)
def test_what_asks_denies_hedges_or_speaks_of_others_is_no_support(statement: str, turn: str) -> None:
    assert judge(clause(statement), turn).verdict != "supports"


@pytest.mark.parametrize(
    ("statement", "turn"),
    [
        ("I like football", "I hate football"),
        ("I hate football", "I love football"),
        ("I like football", "I don't like football"),
        ("I love dogs", "I can't stand dogs"),
        ("I eat meat", "I don't eat meat"),
        ("I have a dog", "I don't have a dog"),
    ],
)
def test_the_opposite_contradicts(statement: str, turn: str) -> None:
    assert judge(clause(statement), turn).verdict == "contradicts"


@pytest.mark.parametrize(
    ("statement", "turn", "own_words"),
    [
        ("I have a black dog", "I used to have a black dog.", "I used to have a black dog"),
        ("I love hiking in the mountains", "I love hiking in tall mountains", "I love hiking in tall mountains"),
        ("I like pizza", "So I like pizza with pineapple", "I like pizza with pineapple"),
        ("We moved to Texas", "We moved to Texas when I was six", "We moved to Texas when I was six"),
        ("I have a dog", "Yes! I have a dog named Rex", "I have a dog named Rex"),
    ],
)
def test_what_comes_close_is_restated_in_the_persons_own_words(statement: str, turn: str, own_words: str) -> None:
    judgement = judge(clause(statement), turn)
    assert judgement.verdict == "restates"
    assert judgement.clause is not None
    assert judgement.clause.without_opener() == own_words
    assert own_words in turn
    assert judge(judgement.clause, turn).verdict == "supports", "a person's own clause supports itself"


def test_support_in_one_clause_counts_more_than_a_contradiction_in_another() -> None:
    assert judge(clause("I like tea"), "I like tea but I don't like tea bags in it").verdict == "supports"


def test_a_turn_supports_only_what_it_holds_every_content_word_of() -> None:
    for turn in ("I love hiking and biking", "I really like tea", "my favorite food is pasta"):
        for statement in ("I love hiking", "I love biking", "I like tea", "my favorite food is pizza"):
            if judge(clause(statement), turn).verdict == "supports":
                assert clause(statement).content_stems <= clause(turn).content_stems
