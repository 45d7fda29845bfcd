"""Turns that hold a statement's words and do not say it: none of them may support it, or be printed in its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.extraction.asking.own_statements import find_own_statements
from serving.extraction.bank import standard_bank
from serving.extraction.language.clauses import Clause
from serving.extraction.language.splitting import split_clauses
from serving.extraction.support.judge import judge
from tests.support.extraction import said

# Each of these holds "football" and a word of liking, and none says that its writer likes football.
NO_LIKING = [
    "I hate football",
    "I used to like football",
    "My brother likes football",
    "I wish I liked football",
    "do you like football?",
    "Do you like football",
    "you like football",
    "He says I like football",
    "I don't like football",
    "I dont like football",
    "I do not really like football",
    "I never liked football",
    "I no longer like football",
    "I can't say I like football",
    "I hardly like football",
    "I would like football if it were shorter",
    "I might like football",
    "I may like football",
    "I could like football",
    "I should like football",
    "I will like football one day",
    "I'm going to like football",
    "I almost like football",
    "maybe I like football",
    "perhaps I like football",
    "I guess I like football",
    "I suppose I like football",
    "I seem to like football",
    "I pretend to like football",
    "If I like football, I keep it to myself",
    "When drunk, I like football",
    "When I'm drunk, I like football",
    "Unless it rains, I like football",
    "As a kid, I liked football",
    "As a kid, I like football",
    "In theory, I like football",
    "In my dreams, I like football",
    "In the game, I like football",
    "Imagine, I like football",
    "Let's say, I like football",
    "I like football, but that was years ago",
    "I like football, but not anymore",
    "I like football, though I used to hate it and I do again, I don't like it",
    "I like football... not",
    "I like football. Not!",
    "I like football. NOT",
    "I like football. Just kidding",
    "I like football. jk",
    "I like football, just kidding",
    "I like football. Or so my wife thinks.",
    "I like football... in theory",
    "I like football... when it is over",
    "I like football. Well, used to.",
    "I like football. I mean, he does.",
    "I like football. Did I?",
    "I like football? No.",
    "I like football, right?",
    "I like football is what he wants to hear",
    "I like football as much as root canals",
    "I like football about as much as toothache",
    "I like football less than anything",
    "I like football players",
    "I like football only when it is over",
    "I like football, when I'm drunk",
    "I like football (as a kid)",
    "I like football (not)",
    "Like I like football",
    "As if I like football",
    "Oh sure, I like football",
    "Yeah right, I like football",
    "It's not that I like football",
    "It is false that I like football",
    "Nobody believes that I like football",
    "My wife thinks I like football",
    "According to my wife I like football",
    "According to my wife, I like football",
    "He was like, I like football",
    "She's all like, I like football",
    "Him: I like football",
    "Brother: I like football",
    "> I like football",
    '"I like football" is on his mug',
    "“I like football”",
    "`I like football` prints the text ```I like football```",
    "I like football - Lionel Messi",
    "I like football — Lionel Messi",
    "I like football, said no one ever",
    "Translate: I like football",
    "The song goes, I like football",
    "True or false: I like football",
    "Two truths and a lie: I like football, I sing, I fly",
    "Act as a fan. I like football",
    "Fill in the blank: I like football and ___",
    "What if I like football",
    "Who says I like football",
    "Would you believe I like football",
    "Should I like football",
    "Not that I like football",
    "No way do I like football",
    "Everyone thinks I like football",
    "We like football teams",
    "I like football 🙄",
    "I like football /s",
    "I like the idea of football",
    "I like that you like football",
    "I doubt I like football",
    "I refuse to like football",
    "I was told I like football",
    "I want to like football",
    "I try to like football",
    "Our neighbours like football",
    "Football likes me",
    "It looks like football",
    "I feel like football",
    "I was like football what",
    "Before I moved, I liked football",
    "I liked football",
    "I did like football",
    "One day I like football, the next I don't",
    "I like football\nsaid my brother",
    "I like football...\nnot",
    "I LIKE FOOTBALL? NEVER",
    "I like football, I used to",
]


@pytest.mark.parametrize("turn", NO_LIKING)
def test_what_does_not_say_it_does_not_support_it(turn: str) -> None:
    assert judge(Clause("I like football", "I like football"), turn).verdict != "supports"


@pytest.mark.parametrize("turn", NO_LIKING)
def test_what_does_not_say_it_is_no_interest_of_the_users_own(turn: str) -> None:
    found = find_own_statements([said(turn)], bank=standard_bank(), limit=100)
    likings = [each.clause.without_opener() for each in found if each.topic == "interests"]
    assert "i like football" not in [text.casefold().rstrip("!?.") for text in likings]


LIKING = [
    "I like football",
    "i like football",
    "I like football!",
    "I really like football",
    "I do like football",
    "Yes, I like football",
    "well I like football",
    "haha yeah I like football lol",
    "I like football, you?",
    "I like football. What about you?",
    "I like football and tennis",
    "I like football too",
    "I like football as well",
    "I like football, by the way.",
    "I like football... what about you?",
    "I like football... and I sing",
    "Hi! I like football. My brother hates it.",
    "My brother hates it, I like football",
    "I hate rain but I like football",
    "I like football. It was on yesterday.",
    "I like football. No, I don't smoke.",
    "Honestly I like football",
    "I’m tall and I like football",
]


@pytest.mark.parametrize("turn", LIKING)
def test_what_says_it_supports_it(turn: str) -> None:
    assert judge(Clause("I like football", "I like football"), turn).verdict == "supports"


@pytest.mark.parametrize(
    ("statement", "turn"),
    [
        ("I live in Oslo", "I lived in Oslo"),
        ("I live in Oslo", "I don't live in Oslo"),
        ("I live in Oslo", "I live near Oslo"),
        ("I live in Oslo", "I live in Oslo in my novel"),
        ("I live in Oslo", "I want to live in Oslo"),
        ("I live in Oslo", "My sister lives in Oslo"),
        ("I live in Oslo", "I used to live in Oslo"),
        ("I live in Oslo", "Before I met her, I live in Oslo"),
        ("I am a nurse", "I am not a nurse"),
        ("I am a nurse", "I was a nurse"),
        ("I am a nurse", "I am a nurse in the play"),
        ("I am a nurse", "My mother: I am a nurse"),
        ("I am a nurse", "I am no nurse"),
        ("I have two cats", "I had two cats"),
        ("I have two cats", "I have three cats"),
        ("I have two cats", "I have two cats less than she"),
        ("I have two cats", "I should have two cats"),
        ("I have two cats", "I have two cats. Well, had."),
        ("I never drink", "I never drink and drive"),
        ("I don't eat meat", "I don't eat meat on Fridays"),
        ("I don't eat meat", "I don't eat meat and potatoes together"),
        ("I eat meat", "I don't eat meat"),
        ("my favorite color is blue", "my favorite color isn't blue"),
        ("my favorite color is blue", "my favorite color was blue"),
        ("my favorite color is blue", "my brother's favorite color is blue"),
        ("my favorite color is blue", "my favorite color is blue, but that was in school"),
        ("I work at a bakery", "I worked at a bakery"),
        ("I work at a bakery", "I may work at a bakery"),
        ("I work at a bakery", "I quit. I work at a bakery, I used to"),
        ("I work at a bakery", "I wish I could work at a bakery"),
    ],
)
def test_other_times_moods_and_subjects_are_no_support(statement: str, turn: str) -> None:
    assert judge(Clause(statement, statement), turn).verdict != "supports"


@pytest.mark.parametrize(
    ("statement", "turn"),
    [
        ("I like football", "Sadly I don't like football"),
        ("I like football", "I can't stand football"),
        ("I like football", "i hate football so much"),
        ("I hate football", "I like football"),
        ("I eat meat", "I do not eat meat"),
    ],
)
def test_the_opposite_said_plainly_contradicts_or_says_nothing_but_never_supports(statement: str, turn: str) -> None:
    assert judge(Clause(statement, statement), turn).verdict in {"contradicts", "none"}


@pytest.mark.parametrize("turn", ["I used to hate football", "My brother hates football", "do you hate football?"])
def test_a_trap_contradicts_as_little_as_it_supports(turn: str) -> None:
    assert judge(Clause("I like football", "I like football"), turn).verdict in {"none", "restates"}


STATEMENTS = [
    "I like football",
    "I live in Oslo",
    "I have two cats",
    "I work as a nurse",
    "I hate loud music",
    "I don't eat meat",
    "my favorite color is green",
    "I'm good at chess",
    "I usually get up at five",
    "My sister plays the violin",
]
# What may be put around any statement so that the turn no longer says it.
WRAPPERS = [
    "{}?",
    "{}, right?",
    "do you think {}?",
    "If {}, I'll eat my hat",
    "if {} then so be it",
    "When drunk, {}",
    "When he was here, {}",
    "Unless it rains, {}",
    "As a kid, {}",
    "In my dreams, {}",
    "In theory, {}",
    "In the game, {}",
    "Let's say, {}",
    "Imagine, {}",
    "Hypothetically, {}",
    "Back then, {}",
    "Before the war, {}",
    "According to my aunt, {}",
    "It's not true that {}",
    "It is not that {}",
    "I don't think {}",
    "I doubt that {}",
    "I wish {}",
    "I pretend {}",
    "Maybe {}",
    "perhaps {}",
    "My boss says {}",
    "My boss thinks that {}",
    "Everybody believes {}",
    "He was like, {}",
    "Him: {}",
    "> {}",
    '"{}"',
    "the lyrics go: {}",
    "Translate: {}",
    "True or false: {}",
    "two truths and a lie: {}, and so on",
    "Act as a pirate. {}",
    "{}... NOT",
    "{}. Not!",
    "{}. - No",
    "{}. Wrong!",
    "{}. Disagree.",
    "{}. I'm lying.",
    "{}. April fools!",
    "{}. ❌",
    "{} — Oscar Wilde",
    "{} ~ Bob",
    "Far from it, {}",
    "Never in my life, {}",
    "Rewrite this. {}",
    "My essay:\n\n{}",
    "'{}'",
    "{}. Just kidding.",
    "{} - just kidding",
    "{} jk",
    "{} /s",
    "{} 🙄",
    "{}. Said nobody.",
    "{}, said no one ever",
    "{}. Or so they think.",
    "{}, but that was years ago",
    "{}, but it was a joke",
    "{}. Well, used to.",
    "{}... in theory",
    "{}. In my dreams.",
    "{}. Scratch that.",
    "{}. I lied.",
    "{}. That's a lie.",
    "{} is what my sister would write",
    "{} if you pay me",
    "{} when nobody looks",
    "{} only on paper",
    "{} as far as anybody knows",
    "{} except that it is false",
    "{} - Oscar Wilde",
    "Oh sure, {}",
    "Yeah right, {}",
    "As if {}",
]


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_no_statement_is_supported_by_what_takes_it_back(statement: str, wrapper: str) -> None:
    assert judge(Clause(statement, statement), wrapper.format(statement)).verdict != "supports"


HARMLESS = ["{}", "Well, {}", "{}!", "Hi. {}. You?", "{}, what about you?", "{} lol", "yes {}", "It rains. {}\nok bye"]


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("wrapper", HARMLESS)
def test_every_statement_is_supported_by_itself_in_plain_company(statement: str, wrapper: str) -> None:
    turn = wrapper.format(statement)
    assert judge(Clause(statement, statement), turn).verdict == "supports"


@given(st.text(alphabet=st.sampled_from(" .,!?\n'\"…-:;()Iibutlkenodwhr"), max_size=60), st.sampled_from(STATEMENTS))
def test_whatever_stands_around_it_a_supported_statement_is_in_the_turn(noise: str, statement: str) -> None:
    for turn in (f"{noise} {statement}", f"{statement} {noise}", noise):
        judgement = judge(Clause(statement, statement), turn)
        if judgement.verdict == "supports":
            assert judgement.clause is not None
            assert judgement.clause.sentence in turn
            assert Clause(statement, statement).content_stems <= judgement.clause.content_stems


@given(st.text(max_size=200))
def test_clauses_are_passages_of_any_text_in_order(text: str) -> None:
    position = 0
    for clause in split_clauses(text):
        position = text.index(clause.text, position) + len(clause.text)
        assert clause.sentence in text


def test_what_somebody_liked_once_is_no_statement_of_theirs_whatever_else_its_words_fit() -> None:
    """`country` is a cue of where people live, and living somewhere once is told."""
    turns = ("I used to like country music", "I used to hate my country", "I used to live in the country")
    own = find_own_statements([said(*turns)], bank=standard_bank(), limit=10)
    assert [each.clause.text for each in own] == ["I used to live in the country"]
