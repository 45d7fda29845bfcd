"""Made people: a seed gives traits, and the conversations in which they say them in many ways, among traps.

Each trait is said several times in different words. Besides, everybody asks, wishes, reports and remembers things that
are no traits of theirs (`absent`), and says what anybody says (`PLATITUDES`). Negated, the same person says the
opposite of every trait and nothing else changes. People who are fitted on (`FIRST_FITTED` and later seeds) and people
who are measured on share no thing, no trap and no platitude: what is learnt of the ones says nothing of the others'
sentences. Nothing here knows how extraction reads.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from transcripts.transcript import Transcript, Turn

Kind = Literal["kin", "like", "work", "live", "have", "favorite", "skill", "habit"]
_CONVERSATIONS = 18
_TRAITS = 12
_TIMES_SAID = 3
FIRST_FITTED = 1000
_START = datetime(2024, 1, 1, 9, tzinfo=UTC)

_LIKED = (
    "rowing on the lake", "rye bread", "old jazz records", "chess", "wild swimming", "green olives",
    "crossword puzzles",
    "horror films", "black coffee", "ice hockey", "opera", "garlic soup", "country music", "long train rides",
    "camping",
    "science fiction", "sour cherries", "board games", "thunderstorms", "spicy noodles", "poetry", "motorbikes",
    "karaoke",
    "fly fishing", "blue cheese", "marathons", "knitting", "bird watching", "crowded markets", "early mornings",
)  # fmt: skip
_TRADES = ("carpenter", "nurse", "baker", "welder", "librarian", "plumber", "surveyor", "vet", "florist", "tailor")
_TOWNS = ("Bergen", "Leeds", "Porto", "Graz", "Turku", "Ghent", "Cork", "Basel", "Lyon", "Gdansk", "Tartu", "Malmo")
_POSSESSIONS = (
    "a grey parrot", "two cats", "a greenhouse", "a red canoe", "an old piano", "a telescope", "three goats", "a van",
    "a tandem", "a pottery wheel", "a beehive", "a sewing machine",
)  # fmt: skip
_SKILLS = (
    "repairing clocks",
    "drawing maps",
    "baking pies",
    "speaking Danish",
    "juggling",
    "pruning trees",
    "first aid",
)
_HABITS = (
    "get up at five", "walk to work", "write lists", "eat soup for lunch", "read before bed", "skip breakfast",
    "nap at noon",
)  # fmt: skip
_FAVORITES = {
    "color": ("green", "orange", "violet", "turquoise"),
    "season": ("autumn", "spring", "winter"),
    "animal": ("otter", "heron", "badger", "lynx"),
    "subject": ("geometry", "history", "botany", "astronomy"),
}
_LIKES = ("I love {0}", "I really like {0}", "i like {0} a lot", "I enjoy {0}", "I'm a big fan of {0}", "I love {0}!")
_DISLIKES = ("I hate {0}", "I don't like {0}", "I can't stand {0}", "i dislike {0}", "I really don't like {0}")
_SAID: dict[Kind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "like": (_LIKES, _DISLIKES),
    "work": (
        ("I work as a {0}", "I'm a {0}", "i am a {0}", "I work as a {0} in town"),
        ("I don't work as a {0}", "I am not a {0}", "I'm not a {0}"),
    ),
    "live": (
        ("I live in {0}", "i live in {0}", "I live in {0} with my family", "I live in {0}"),
        ("I don't live in {0}", "i don't live in {0}", "I do not live in {0}"),
    ),
    "have": (
        ("I have {0}", "I've got {0}", "i have {0}", "I own {0}"),
        ("I don't have {0}", "I don't own {0}", "i do not have {0}"),
    ),
    "favorite": (("my favorite {0} is {1}", "My favorite {0} is {1}"), ("my favorite {0} is not {1}",
    "My favorite {0} isn't {1}")),
    "skill": (
        ("I'm good at {0}", "I am really good at {0}", "i'm good at {0}"),
        ("I'm not good at {0}", "I am not good at {0}", "i'm not good at {0}"),
    ),
    "habit": (("I usually {0}", "I always {0}", "i {0} every day"), ("I never {0}", "i never {0}", "I don't {0}")),
}  # fmt: skip
# What holds an absent thing's words and does not say that it is theirs.
_TRAPS = (
    "do you like {0}?", "My brother loves {0}", "I used to like {0}", "I wish I liked {0}", "My neighbor hates {0}",
    "If I had time I would love {0}", "You like {0}, right?", "As a kid I loved {0}", "She said she enjoys {0}",
    "maybe I would like {0}", "My sister can't stand {0}", "what do people see in {0}?",
)  # fmt: skip
_KIN = {
    "My brother loves {0}": ("brother", True),
    "My neighbor hates {0}": ("neighbor", False),
    "My sister can't stand {0}": ("sister", False),
}
PLATITUDES = (
    "I like music", "I love my family", "I like good food", "I like movies", "I like to travel", "I have a phone",
    "I love weekends", "I like my friends", "I like pizza", "I love my mom", "I like nice weather", "I love to sleep",
    "I like my job", "I have a lot of work", "I like holidays", "I love my dog",
)  # fmt: skip
_SMALL_TALK = (
    "Hello there, how are you?", "not much, just resting today", "haha that is funny", "It rained all day here",
    "the bus was late again", "sounds good to me", "What are you up to?", "ok, talk to you later", "so true",
)  # fmt: skip
_ASKED = (
    "How are you today?", "Tell me more about yourself.", "What do you like?", "What is new?", "Anything else?",
    "And you?",
    "What do you do?", "Interesting! Go on.",
)  # fmt: skip
_OPENERS = ("", "", "", "Well, ", "Yes, ", "haha ", "Hm, ", "Honestly, ")
_ENDINGS = ("", "", ".", "!", ", you?", ". What about you?")


@dataclass(frozen=True)
class Trait:
    """One thing that is true of a person: `holds` is false for a thing that they deny or dislike.

    `about` are the words that name it; of kind ``kin``, who it is true of and what they like.
    """

    kind: Kind
    about: tuple[str, ...]
    holds: bool = True


@dataclass(frozen=True, kw_only=True)
class MadePerson:
    """A person with known traits, things that are none of theirs, and everything they said.

    `of_others` is what they said of their kin: true, and worth stating as such, but no trait of theirs.
    """

    name: str
    traits: tuple[Trait, ...]
    absent: tuple[str, ...]
    transcripts: tuple[Transcript, ...]
    of_others: tuple[Trait, ...] = ()


def half(words: Sequence[str], seed: int) -> tuple[str, ...]:
    """Return every other one: those of people who are fitted on, or of those who are measured on."""
    return tuple(words[1 if seed >= FIRST_FITTED else 0 :: 2])


def make_person(seed: int, *, negated: bool = False) -> MadePerson:
    """Return the person that a seed gives; `negated`, the one who says the opposite of each of their traits."""
    rng = random.Random(f"extraction_fidelity/{seed}")
    traits, absent = _draw(rng, seed)
    if negated:
        traits = tuple(replace(trait, holds=not trait.holds) for trait in traits)
    sentences = [_say(trait, rng) for trait in traits for _ in range(_TIMES_SAID)]
    traps = [(rng.choice(half(_TRAPS, seed)), thing) for thing in absent for _ in range(2)]
    sentences += [trap.format(thing) for trap, thing in traps]
    sentences += rng.sample(half(PLATITUDES, seed), 3)
    sentences += [rng.choice(half(_SMALL_TALK, seed)) for _ in range(_CONVERSATIONS)]
    rng.shuffle(sentences)
    name = f"made-{seed}{'-negated' if negated else ''}"
    others = tuple(Trait("kin", (_KIN[trap][0], thing), _KIN[trap][1]) for trap, thing in traps if trap in _KIN)
    transcripts = tuple(_conversations(sentences, rng))
    return MadePerson(name=name, traits=traits, absent=absent, of_others=others, transcripts=transcripts)


def _draw(rng: random.Random, seed: int) -> tuple[tuple[Trait, ...], tuple[str, ...]]:
    things = rng.sample(half(_LIKED, seed), 12)
    traits = [Trait("like", (thing,), holds=index % 3 != 2) for index, thing in enumerate(things[:6])]
    field = rng.choice(half(sorted(_FAVORITES), seed))
    traits += [
        Trait("work", (rng.choice(half(_TRADES, seed)),)),
        Trait("live", (rng.choice(half(_TOWNS, seed)),)),
        Trait("have", (rng.choice(half(_POSSESSIONS, seed)),)),
        Trait("favorite", (field, rng.choice(_FAVORITES[field]))),
        Trait("skill", (rng.choice(half(_SKILLS, seed)),)),
        Trait("habit", (rng.choice(half(_HABITS, seed)),)),
    ]
    return tuple(traits[:_TRAITS]), tuple(things[6:])


def _say(trait: Trait, rng: random.Random) -> str:
    says, denies = _SAID[trait.kind]
    return (
        rng.choice(_OPENERS) + rng.choice(says if trait.holds else denies).format(*trait.about) + rng.choice(_ENDINGS)
    )


def _conversations(sentences: list[str], rng: random.Random) -> list[Transcript]:
    """Share the sentences out: a turn each, somebody else's before every one of them."""
    found = []
    for number in range(_CONVERSATIONS):
        turns = []
        start = _START + timedelta(days=11 * number)
        for index, sentence in enumerate(sentences[number::_CONVERSATIONS]):
            time = start + timedelta(minutes=index)
            turns += [
                Turn(role="other", text=rng.choice(_ASKED), time=time),
                Turn(role="user", text=sentence, time=time),
            ]
        found.append(Transcript(turns=tuple(turns), source_format="made"))
    return found
