"""Words that are in a turn, and are not what its writer says of themselves."""

from __future__ import annotations

import pytest

from serving.extraction.language.clauses import Clause
from serving.extraction.language.voice import is_own_voice
from serving.extraction.support.judge import judge


@pytest.mark.parametrize(
    "turn",
    [
        "My brother said: I hate my job",
        "My sister goes, I love dogs",
        "As my mom says, I love pizza",
        "Him: I like cats",
        "I am a nurse, he said",
        "Nobody says, I love dogs",
        "I love dogs, is what my sister always says",
        "> I love dogs",
        '"I love dogs" is what my sister always writes',
        "the song goes: I love rock and roll",
        "Lyrics: I love rock and roll",
        "Translate: I am a doctor",
        "It is not true, I love pizza",
        "People say: I love pizza, but it's false",
        "I love pizza... NOT!",
        "I love pizza. Just kidding!",
        "I smoke - just kidding",
        "I love pizza - said no one ever",
        "Yeah right, I love pizza",
        "'I love pizza'",
        "‘I love pizza’",
        "`I love pizza`",
        "~~I love pizza~~",
        "<!-- I love pizza -->",
        "/* I love pizza */",
        "// I love pizza",
        "Summarize:\nI love pizza",
        "My essay:\n\nI love pizza",
        "User review:\nI love pizza",
        "Please proofread the following\nI love pizza",
        "Correct this sentence. I love pizza",
        "Could you please rewrite it? I love pizza",
        "Hi!\nRephrase that.\nI love pizza",
        "Is this sentence correct? I love pizza",
        "Here is my friend's email\nI love pizza",
        "Dear John,\nI love pizza\nBest, Anna",
        "From: Bob\nTo: me\n\nI love pizza",
        "Forwarded message\nI love pizza",
        "I love pizza\nKind regards\nAnna",
        "Person A - I love pizza",
        "Answer with yes or no. I love pizza.",
        "Rate how true this is. I love pizza.",
        "Example. I love pizza",
        "e.g. I love pizza",
        "Consider a person. I love pizza",
        "I bought a shirt that reads I love pizza",
    ],
)
def test_what_is_quoted_reported_or_taken_back_is_nobodys_own(turn: str) -> None:
    assert not is_own_voice(turn)


@pytest.mark.parametrize(
    "turn",
    [
        "I love dogs",
        "Well, I live in Oslo: it rains a lot",
        "I work as a nurse, haha",
        "I don`t smoke, I love dogs",
        "Don‘t know, I love dogs",
        "I love rock 'n' roll and my bike",
        "I correct essays and edit films. I fix bikes.",
        "My brother reads, I love dogs",
        "My dear friend, I love dogs",
    ],
)
def test_plain_talk_is_the_writers_own(turn: str) -> None:
    assert is_own_voice(turn)


@pytest.mark.parametrize(
    ("statement", "turn"),
    [
        ("I killed a man", "I killed a man in GTA"),
        ("I am a doctor", "I am a doctor in the game"),
        ("I live in Paris", "I live in Paris in the novel I'm writing"),
        ("I have two kids", "I have two kids in my class"),
        ("I have cancer", "I have cancer as my star sign"),
        ("I don't love my wife", "I don't love my wife any less"),
        ("I never drink", "I never drink and drive"),
        ("I like jazz", "I like jazz as a kid"),
        ("I eat meat", "I eat meat when I am abroad"),
        ("I was arrested", "I was arrested by her beauty"),
        ("I hate my job", "My brother said: I hate my job"),
    ],
)
def test_a_part_of_what_was_said_does_not_support_the_whole(statement: str, turn: str) -> None:
    assert judge(Clause(statement, statement), turn).verdict != "supports"
