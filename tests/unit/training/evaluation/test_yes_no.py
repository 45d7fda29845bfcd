from __future__ import annotations

from typing import Literal

from training.evaluation.yes_no import choose_questions
from training.examples import Example, Kind, ask


def closed(
    question: str, completion: str, kind: Kind = "statement", answer: Literal["yes", "no"] | None = None
) -> Example:
    return Example(
        kind=kind, prompt=ask(question), completion=completion, transcript_id="t", turn_index=0, answer=answer
    )


YES = [closed(f"Do you like thing {number}?", "Yes, I do.") for number in range(9)]
NO = [closed(f"Do you dislike thing {number}?", "No, I like it.", "negative") for number in range(4)]


def test_there_are_as_many_questions_with_yes_as_with_no() -> None:
    chosen = choose_questions([*YES, *NO], limit=24, seed=0)
    assert sum(question.yes for question in chosen) == 4
    assert len(chosen) == 8
    assert len(choose_questions([*YES, *NO], limit=5, seed=0)) == 4


def test_no_question_is_worded_as_it_was_trained() -> None:
    trained = {example.prompt[-1].content for example in [*YES, *NO]}
    chosen = choose_questions([*YES, *NO], limit=24, seed=0)
    assert not trained & {question.text for question in chosen}
    assert all(any(text in question.text for text in trained) for question in chosen)


def test_the_seed_chooses_and_equal_seeds_choose_alike() -> None:
    assert choose_questions([*YES, *NO], limit=4, seed=1) == choose_questions([*YES, *NO], limit=4, seed=1)
    assert choose_questions([*YES, *NO], limit=4, seed=1) != choose_questions([*YES, *NO], limit=4, seed=2)


def test_without_either_answer_nothing_is_asked() -> None:
    assert choose_questions(YES, limit=24, seed=0) == []
    assert choose_questions(NO, limit=24, seed=0) == []


def test_the_writer_knows_better_than_the_first_word() -> None:
    said = closed("Do you like tea?", "I can't stand it.", answer="no")
    chosen = choose_questions([*YES, said], limit=24, seed=0)
    assert next(question.text for question in chosen if not question.yes).count("Do you like tea?") == 1


def test_replies_and_open_questions_are_no_yes_no_questions() -> None:
    reply = closed("Coming?", "No, not today.", "reply")
    opener = closed("What do you like?", "Nobody knows, I like tea.")
    assert choose_questions([*YES, reply, opener], limit=24, seed=0) == []
