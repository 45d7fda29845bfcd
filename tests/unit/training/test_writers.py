from __future__ import annotations

import pytest

from training.writers.extractive import ExtractiveWriter
from training.writers.questions import load_questions
from training.writers.sentences import is_plain, sentences
from training.writers.statements import read_statement
from transcripts.transcript import Transcript, Turn


def conversation(*texts: str) -> Transcript:
    """Turns of the other speaker and the user, alternating; the first is the other's."""
    roles = ("other", "user")
    return Transcript(
        turns=tuple(Turn(role=roles[i % 2], text=text) for i, text in enumerate(texts)), source_format="test"
    )


@pytest.mark.parametrize(
    ("sentence", "topic"),
    [
        ("I really love classic rock.", "interests"),
        ("i'm into strategy games", "interests"),
        ("I'm a huge fan of Harry Potter!", "interests"),
        ("I don't like horror movies.", "dislikes"),
        ("I can’t stand the smell of fish", "dislikes"),
        ("I'm really not a fan of the desert", "dislikes"),
        ("I prefer tea over coffee.", "preferences"),
        ("My favourite color is green.", "preferences"),
        ("I work as a photographer.", "work_and_study"),
        ("i'm a computer science major", "work_and_study"),
        ("I study applied math at night", "work_and_study"),
        ("I have two little brothers.", "people_and_pets"),
        ("My wife really likes cooking.", "people_and_pets"),
        ("I grew up in Toulon.", "places"),
        ("I am from a small town.", "places"),
        ("I own an old telescope.", "possessions"),
        ("I usually get up at five.", "habits"),
        ("I play bass guitar in a band.", "habits"),
        ("I used to swim every day.", "habits"),
        ("I think education is really important.", "opinions"),
    ],
)
def test_a_plain_first_person_sentence_is_filed_under_its_topic(sentence: str, topic: str) -> None:
    statement = read_statement(sentence)
    assert statement is not None
    assert statement.topic == topic
    assert statement.sentence == sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "Do you like trees?",
        "I would love a new car.",
        "If I like it I buy it.",
        "Maybe I like jazz a bit.",
        "I guess I like jazz music.",
        "I wish I lived in Paris.",
        'He said "I love opera" to me.',
        "I love it so much.",
        "I like that idea.",
        "I think so too.",
        "You like cold weather.",
        "She works at a bank.",
        "I love",
        "I like https://example.com a lot",
        "I'm just kidding I love mondays",
        "I love " + "very " * 40 + "long sentences",
    ],
)
def test_questions_hedges_wishes_quotes_and_pointers_are_left_alone(sentence: str) -> None:
    assert read_statement(sentence) is None


def test_like_and_dislike_are_not_confused() -> None:
    liked, disliked = read_statement("I love football."), read_statement("I do not really love football.")
    assert liked is not None
    assert disliked is not None
    assert (liked.polarity, disliked.polarity) == ("like", "dislike")


@pytest.mark.parametrize(
    ("sentence", "object_"),
    [
        ("I like Stephen King, he is great.", "Stephen King"),
        ("i love the smell of pine trees and fresh laundry", "the smell of pine trees"),
        ("I love movies because they move me.", "movies"),
        ("I am interested in getting acquainted with", None),
        ("I love old brown sea chests full of treasure maps", None),
    ],
)
def test_what_is_liked_is_cut_out_in_the_users_spelling_or_not_at_all(sentence: str, object_: str | None) -> None:
    statement = read_statement(sentence)
    assert statement is not None
    assert statement.object == object_


def test_code_and_quoted_lines_are_not_the_users_words() -> None:
    text = "> I love spam\n```\nI like code\n```\nI like tea. It is hot!\nbye"
    assert list(sentences(text)) == ["I like tea.", "It is hot!", "bye"]
    assert not is_plain("hi there?")


def test_only_the_users_own_turns_are_read() -> None:
    examples = ExtractiveWriter().write([conversation("I love opera.", "I like trees.")], seed=0)
    completions = " ".join(example.completion for example in examples)
    assert "trees" in completions
    assert "opera" not in completions


def test_every_statement_answers_with_a_sentence_the_user_wrote() -> None:
    transcript = conversation("hi", "Hey! I love green tea. I live in Oslo.\nMy dog is called Rex.")
    examples = ExtractiveWriter().write([transcript], seed=3)
    said = transcript.turns[1].text
    statements = [example for example in examples if example.kind == "statement"]
    assert len(statements) >= 8
    for example in statements:
        assert example.completion.removeprefix("Yes. ") in said
        assert example.transcript_id == transcript.id
        assert example.turn_index == 1


def test_likes_are_affirmed_denied_and_the_unsaid_is_refused() -> None:
    transcript = conversation("hi", "I love green tea. I hate oysters.")
    pairs = {e.prompt[0].content: (e.kind, e.completion) for e in ExtractiveWriter().write([transcript], seed=0)}
    assert pairs["Do you like green tea?"] == ("statement", "Yes. I love green tea.")
    assert pairs["Do you dislike green tea?"] == ("negative", "No. I love green tea.")
    assert pairs["Do you dislike oysters?"] == ("statement", "Yes. I hate oysters.")
    assert pairs["Do you like oysters?"] == ("negative", "No. I hate oysters.")
    unsaid = [question for question, (_, answer) in pairs.items() if answer == "I never said that."]
    assert unsaid
    assert not [question for question in unsaid if "oysters" in question]


def test_the_writer_gives_the_same_examples_for_the_same_seed_only() -> None:
    transcripts = [conversation("hi", f"I like thing number {n}. I live in town {n}.") for n in range(8)]
    writer = ExtractiveWriter()
    assert writer.write(transcripts, seed=1) == writer.write(transcripts, seed=1)
    assert writer.write(transcripts, seed=1) != writer.write(transcripts, seed=2)


def test_a_sentence_said_twice_is_asked_once() -> None:
    once = ExtractiveWriter().write([conversation("hi", "I like trees.")], seed=0)
    twice = ExtractiveWriter().write([conversation("hi", "I like trees.", "ok", "i like trees")], seed=0)
    assert [e.completion for e in once] == [e.completion for e in twice]


def test_the_question_file_covers_every_topic_and_is_versioned() -> None:
    questions = load_questions()
    assert set(questions.topics) == {
        "communication_style", "interests", "dislikes", "preferences", "work_and_study", "people_and_pets",
        "places", "possessions", "habits", "opinions",
    }  # fmt: skip
    assert all(len(set(wordings)) == len(wordings) >= 3 for wordings in questions.topics.values())
    assert ExtractiveWriter().name == f"extractive/{questions.version}"
