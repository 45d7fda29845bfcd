from __future__ import annotations

import pytest

from serving.extraction.language.clauses import Clause
from serving.extraction.language.splitting import split_clauses


def only(text: str) -> Clause:
    (clause,) = split_clauses(text)
    return clause


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("I like cats, dogs and birds", ["I like cats, dogs and birds"]),
        ("I love hiking, what about you?", ["I love hiking", "what about you?"]),
        ("No, I hate it. Really", ["No", "I hate it.", "Really"]),
        ("I like it but I can't do it", ["I like it", "but I can't do it"]),
        ("I like pizza but not with pineapple", ["I like pizza but not with pineapple"]),
        ("I go if it rains", ["I go if it rains"]),
        ("My wife and I are happy and we sing", ["My wife and I are happy", "and we sing"]),
        ("My brother plays chess and I sing", ["My brother plays chess", "and I sing"]),
        ("one\ntwo", ["one", "two"]),
        ("", []),
        ("...", ["..."]),
    ],
)
def test_clauses_end_only_where_another_subject_follows(text: str, clauses: list[str]) -> None:
    assert [clause.text for clause in split_clauses(text)] == clauses


@pytest.mark.parametrize("text", ["do you like tea", "What a day?", "why me", "are we there", "I like tea?"])
def test_questions_are_known_by_their_mark_or_their_beginning(text: str) -> None:
    assert only(text).is_question


@pytest.mark.parametrize("text", ["I do like tea", "I know what I like", "my question is done."])
def test_statements_are_no_questions(text: str) -> None:
    assert not only(text).is_question


@pytest.mark.parametrize(
    ("text", "stance"),
    [
        ("I like tea", "likes"),
        ("I really love tea", "likes"),
        ("I'm a huge fan of tea", "likes"),
        ("I don't like tea", "dislikes"),
        ("I hate tea", "dislikes"),
        ("I can't stand tea", "dislikes"),
        ("I don't hate tea", None),
        ("I feel like tea", None),
        ("it looks like rain", None),
        ("I drink tea", None),
        ("I was like ok", None),
    ],
)
def test_a_stance_considers_negation_and_what_like_means(text: str, stance: str | None) -> None:
    assert only(text).stance == stance


@pytest.mark.parametrize(
    ("text", "markers"),
    [
        ("I will go", {"future"}),
        ("I'm going to sing", {"future"}),
        ("I'd go if I were rich", {"modal", "condition", "past"}),
        ("I guess I sing", {"doubt"}),
        ("I sing", set()),
    ],
)
def test_markers_say_what_is_done_to_a_claim(text: str, markers: set[str]) -> None:
    assert only(text).markers == markers


@pytest.mark.parametrize(("text", "subject"), [("Well my dog", "my"), ("haha yes I do", "i"), ("the dog I saw", None)])
def test_the_subject_is_the_first_word_but_for_openers(text: str, subject: str | None) -> None:
    found = only(text).subject
    assert (found[1] if found else None) == subject


def test_a_clause_is_a_passage_of_what_was_written() -> None:
    text = "Well… yeah, I love it!! And my mum—she's 70—does, too; what about you? ok"
    for clause in split_clauses(text):
        assert clause.text in text
        assert clause.sentence in text
        assert clause.without_opener() in text


@pytest.mark.parametrize(
    "text", ["I think that is really important", "I think it's great music", "i guess they are nice"]
)
def test_an_opinion_on_what_only_the_context_names_is_no_statement(text: str) -> None:
    assert not any(clause.is_statement for clause in split_clauses(text))


@pytest.mark.parametrize("text", ["I think jazz is important", "I love that band", "I think that music is important"])
def test_an_opinion_that_names_its_object_is_a_statement(text: str) -> None:
    assert any(clause.is_statement for clause in split_clauses(text))
