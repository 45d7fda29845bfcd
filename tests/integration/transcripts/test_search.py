"""Search on a real PostgreSQL: the user's own words, by stem, and nobody else's."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from sqlalchemy import text as sql

from kit.database import Database
from kit.errors import InvalidName
from transcripts.search import Order, search_user_turns
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript, Turn


def talk(*texts: str) -> Transcript:
    turns = tuple(Turn(role="other" if n % 2 else "user", text=text) for n, text in enumerate(texts))
    return Transcript(turns=turns, source_format="plain-text")


async def keep(database: Database, user: str, *transcripts: Transcript, tenant: str = "default") -> None:
    async with database.transaction() as session:
        await TranscriptStore(session).add(tenant, user, transcripts)


async def find(database: Database, query: str, user: str = "ann", limit: int = 10, min_match: int = 1) -> list[str]:
    async with database.transaction() as session:
        found = await search_user_turns(session, "default", user, query, limit, min_match=min_match)
    return [passage.text for passage in found]


async def test_a_statement_finds_the_words_that_support_it_by_stem(database: Database) -> None:
    transcript = talk("I went running with my dogs", "Lovely, do you run with dogs often?", "My soup is cold")
    await keep(database, "ann", transcript)
    async with database.transaction() as session:
        (passage,) = await search_user_turns(session, "default", "ann", "runs with a dog", 5)
    assert (passage.transcript_id, passage.turn_index) == (transcript.id, 0)
    assert passage.text == "I went running with my dogs"
    assert passage.matched == 2
    assert passage.rank > 0
    assert passage.time is None


async def test_what_others_said_in_the_conversation_is_never_found(database: Database) -> None:
    await keep(database, "ann", talk("hello", "I love football"))
    assert await find(database, "football") == []


async def test_another_users_turns_are_never_found(database: Database) -> None:
    await keep(database, "bob", talk("I love football"))
    await keep(database, "ann", talk("I love football too"), tenant="other")
    assert await find(database, "football", user="ann") == []
    assert await find(database, "football", user="bob") == ["I love football"]


async def test_turns_that_hold_more_of_the_words_come_first(database: Database) -> None:
    both, one, long = "My cat plays piano", "A cat. A cat. A cat!", "cat " + "filler " * 200
    await keep(database, "ann", talk(long, "x", one, "x", both))
    assert await find(database, "cat piano") == [both, one, long.strip() + " " if long.endswith(" ") else long]
    assert await find(database, "cat piano", limit=1) == [both]
    assert await find(database, "cat piano", min_match=2) == [both]
    assert await find(database, "cat piano", min_match=3) == []
    assert await find(database, "cats cat piano pianos", min_match=2) == [both]


async def test_turns_that_hold_all_words_come_by_their_time_when_that_is_asked(database: Database) -> None:
    days = {day: datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)}
    turns = [Turn(role="user", text=f"cat piano {day}", time=at) for day, at in days.items()]
    turns += [Turn(role="user", text="cat piano, some day", time=None), Turn(role="user", text="cat", time=days[3])]
    await keep(database, "ann", Transcript(turns=tuple(turns), source_format="test"))
    orders: dict[Order, list[str]] = {"newest": ["3", "2", "1", "day"], "oldest": ["1", "2", "3", "day"]}
    async with database.transaction() as session:
        for order, expected in orders.items():
            for most in (2, 9):
                found = await search_user_turns(session, "default", "ann", "cats pianos", most, order=order)
                assert [passage.text.split()[-1] for passage in found] == expected[:most]


async def test_equal_turns_come_in_a_fixed_order(database: Database) -> None:
    await keep(database, "ann", *(talk("I like tea", "x", f"{n}") for n in range(20)))
    async with database.transaction() as session:
        runs = [await search_user_turns(session, "default", "ann", "tea", 7) for _ in range(3)]
    assert runs[0] == runs[1] == runs[2]
    ids = [passage.transcript_id for passage in runs[0]]
    assert len(ids) == 7
    assert ids == sorted(ids)


@pytest.mark.parametrize("query", ["", "   ", "the of and", "!!! ???", "\0", "\ud83d", "'", "\\", "()", "& | !"])
async def test_a_query_without_words_finds_nothing(database: Database, query: str) -> None:
    await keep(database, "ann", talk("the of and a cat"))
    assert await find(database, query) == []


@pytest.mark.parametrize(
    "query",
    [
        "cat & !dog",
        "!cat",
        "cat:*",
        "'cat",
        "cat' | 'x",
        "cat\\",
        '"cat',
        "-cat",
        "cat <-> (",
        "cat'); drop table turn; --",
        "cat\0dog",
        "\ud83d cat",
        "%s cat :x",
        "https://example.org/?a='b&c cat",
        "o'cat's cat\\'s",
    ],
)
async def test_query_syntax_is_only_words(database: Database, query: str) -> None:
    await keep(database, "ann", talk("my cat sleeps"), talk("no pets"))
    assert await find(database, query) == ["my cat sleeps"]


async def test_random_queries_never_fail(database: Database) -> None:
    await keep(database, "ann", talk("a cat, a dog & a fish's bowl"))
    alphabet = "ab'\\\"&|!()<->:*%$;,./@# \n\t\0éß🐝\ud83d中文_-"
    chooser = random.Random(7)
    async with database.transaction() as session:
        for _ in range(300):
            query = "".join(chooser.choices(alphabet, k=chooser.randrange(40)))
            await search_user_turns(session, "default", "ann", query, 3)


async def test_a_very_long_query_is_searched_by_its_beginning(database: Database) -> None:
    await keep(database, "ann", talk("my cat sleeps"))
    assert await find(database, "cat " + "word " * 100_000) == ["my cat sleeps"]
    assert await find(database, " ".join(f"w{n}" for n in range(5_000))) == []


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_below_one_finds_nothing(database: Database, limit: int) -> None:
    await keep(database, "ann", talk("my cat sleeps"))
    assert await find(database, "cat", limit=limit) == []


async def test_a_bad_name_is_refused(database: Database) -> None:
    async with database.transaction() as session:
        with pytest.raises(InvalidName):
            await search_user_turns(session, "default", "a/b", "cat", 1)


@pytest.mark.parametrize("kind", ["words", "hyphens", "emoji", "one word", "urls", "cjk"])
async def test_a_turn_of_megabytes_is_kept_and_its_beginning_is_found(database: Database, kind: str) -> None:
    """PostgreSQL refuses a search vector over 1 MiB; no text may run into that."""
    many = range(250_000)
    text = {
        "words": " ".join(f"{n:x}word" for n in many),
        "hyphens": "-".join(f"a{n:x}" for n in many),
        "emoji": " ".join(chr(0x10400 + n % 80) + chr(0x10400 + n // 80 % 80) + chr(0x10400 + n // 6400) for n in many),
        "one word": "x" * 2_000_000,
        "urls": " ".join(f"h{n:x}.example.org/{n:x}/{n:x}?{n:x}" for n in many[:60_000]),
        "cjk": " ".join(chr(0x4E00 + n % 20_000) + chr(0x4E00 + n // 20_000) for n in many),
    }[kind]
    await keep(database, "ann", talk(f"zebra {text}"))
    assert await find(database, "zebra") == [f"zebra {text}"]


async def test_a_search_reads_the_users_own_rows_only(database: Database) -> None:
    for user in ("ann", "bob", "cy"):
        await keep(database, user, *(talk(f"{user} likes tea {n}") for n in range(300)))
    async with database.transaction() as session:
        await session.execute(sql("analyze turn"))
        found = await search_user_turns(session, "default", "bob", "tea", 1000)
    assert len(found) == 300
    assert all(passage.text.startswith("bob") for passage in found)
