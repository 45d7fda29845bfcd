"""Extraction with real PostgreSQL search, before an engine that is given here."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from kit.database import Database
from serving.errors import EngineUnavailable
from serving.extraction.corrections.service import Corrections
from serving.extraction.engine_client import EngineClient
from serving.extraction.engines import Engines
from serving.extraction.extractor import Extractor
from serving.extraction.profile import Profile
from serving.extraction.settings import ExtractionSettings
from tests.support.extraction import MANIFEST, said, saying, texts
from transcripts.store import TranscriptStore

TRAPS = (
    "I used to like football",
    "do you like football?",
    "My brother likes football",
    "I wish I liked football",
    "When drunk, I like football",
    "I like football... NOT",
    "He was like, I like football",
)


async def extract(database: Database, transport: httpx.AsyncBaseTransport) -> Profile:
    async with EngineClient(url="http://engine", token="t", transport=transport) as engine:
        return await Extractor(database, Engines(engine), settings=ExtractionSettings()).extract(MANIFEST)


async def latest(database: Database, user: str = "ann") -> Profile | None:
    async with EngineClient(url="http://engine", token="t") as engine:
        return await Extractor(database, Engines(engine), settings=ExtractionSettings()).latest("default", user)


async def keep(database: Database, *turns: str) -> str:
    transcript = said(*turns)
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", [transcript])
    return transcript.id


async def test_search_finds_the_words_and_the_judge_refuses_the_traps(database: Database) -> None:
    await keep(database, *TRAPS, "I love green tea, you?")
    engine = saying(lambda question, sample: ["I like football", "I love green tea"], contrast=lambda text: 3.0)
    profile = await extract(database, engine)
    assert "I like football" not in texts(profile)
    assert "I love green tea" in texts(profile)


async def test_the_same_people_without_traps_state_football(database: Database) -> None:
    await keep(database, "Well, I like football!")
    engine = saying(lambda question, sample: ["I like football"], contrast=lambda text: 3.0)
    (statement,) = [each for _, each in (await extract(database, engine)).statements()]
    assert (statement.text, statement.support[0].quote) == ("I like football", "Well, I like football!")


async def test_a_later_no_is_shown_with_an_earlier_yes_the_newest_first(database: Database) -> None:
    await keep(database, "I like football", "I don't like football", "I hate football")
    engine = saying(lambda question, sample: ["I like football"], contrast=lambda text: 3.0)
    profile = await extract(database, engine)
    (liked,) = [each for _, each in profile.statements() if each.text == "I like football"]
    assert [quote.quote for quote in liked.contradictions] == ["I hate football", "I don't like football"]


async def test_what_is_said_often_hides_neither_when_it_was_said_nor_that_it_was_taken_back(database: Database) -> None:
    """More turns say it than the search for it gives, and who takes it back uses fewer of its words."""
    often = ["I like football, football, football"] * 20
    await keep(database, "Football? I like football", *often, "I hate football", *often, "Ah, I like football")
    engine = saying(lambda question, sample: ["I like football"], contrast=lambda text: 3.0)
    (liked,) = [each for _, each in (await extract(database, engine)).statements() if each.text == "I like football"]
    assert [quote.quote for quote in liked.contradictions] == ["I hate football"]
    assert (liked.first_seen, liked.last_seen) == (
        datetime(2000, 1, 1, tzinfo=UTC),
        datetime(2000 + len(often) * 2 + 2, 1, 1, tzinfo=UTC),
    )


async def test_words_of_a_deleted_transcript_are_not_stated_though_the_adapter_remembers_them(
    database: Database,
) -> None:
    engine = saying(lambda question, sample: ["I love green tea", "I love jazz"], contrast=lambda text: 3.0)
    await keep(database, "I love jazz")
    tea = await keep(database, "I love green tea")
    assert texts(await extract(database, engine)) == {"I love green tea", "I love jazz"}
    async with database.transaction() as session:
        await TranscriptStore(session).delete("default", "ann", tea)
    kept = await latest(database)
    assert kept is not None
    again = await extract(database, engine)
    assert texts(kept) == texts(again) == {"I love jazz"}
    assert "tea" not in kept.to_bytes().decode() + again.to_bytes().decode()


async def test_a_transcript_that_is_deleted_while_the_engine_is_asked_is_not_quoted(database: Database) -> None:
    tea = await keep(database, "I love green tea")
    asked = saying(lambda question, sample: ["I love green tea"], contrast=lambda text: 3.0)

    class Deleting(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await asked.handle_async_request(request)
            if b"prompt_logprobs" in request.content:
                async with database.transaction() as session:
                    if await TranscriptStore(session).present("default", "ann", [tea]):
                        await TranscriptStore(session).delete("default", "ann", tea)
            return response

    assert texts(await extract(database, Deleting())) == set()
    kept = await latest(database)
    assert kept is not None
    assert "tea" not in kept.to_bytes().decode()


async def test_what_is_forbidden_is_neither_stated_nor_kept(database: Database) -> None:
    await keep(database, "I love green tea", "I love jazz")
    await Corrections(database, tenant="default").forbid("ann", "I love green tea", by="bob")
    engine = saying(lambda question, sample: ["I'm a fan of green tea", "I love jazz"], contrast=lambda text: 3.0)
    assert texts(await extract(database, engine)) == {"I love jazz"}


async def test_the_difference_of_two_extractions_says_what_came_and_went(database: Database) -> None:
    await keep(database, "I love green tea", "I love jazz")
    await extract(database, saying(lambda q, s: ["I love green tea"], contrast=lambda t: 3.0 * ("tea" in t)))
    await extract(database, saying(lambda q, s: ["I love jazz"], contrast=lambda t: 3.0 * ("jazz" in t)))
    async with EngineClient(url="http://engine", token="t") as engine:
        found = await Extractor(database, Engines(engine), settings=ExtractionSettings()).difference("default", "ann")
    assert found is not None
    assert ([each.text for each in found.added], [each.text for each in found.gone]) == (
        ["I love jazz"], ["I love green tea"],
    )  # fmt: skip


async def test_a_tenants_own_bank_is_asked_and_named(database: Database) -> None:
    await keep(database, "I own a cordless drill")
    own = """
name: acme.bank
version: "7"
topics:
  - topic: tools
    title: Tools
    cues: [drill]
    questions:
      - {id: tools.own, paraphrases: ["Which tools?", "What tools?"], answer_schema: {type: string}}
"""
    seen: list[dict[str, object]] = []
    transport = saying(lambda question, sample: [], contrast=lambda text: 3.0, requests=seen)
    async with EngineClient(url="http://engine", token="t", transport=transport) as engine:
        extractor = Extractor(database, Engines(engine), settings=ExtractionSettings())
        await extractor.banks.put("default", own, by="bob")
        profile = await extractor.extract(MANIFEST)
    assert (profile.bank.name, profile.bank.version) == ("acme.bank", "7")
    assert [(section.topic, [s.text for s in section.statements]) for section in profile.topics] == [
        ("tools", ["I own a cordless drill"])
    ]
    assert {body["messages"][0]["content"] for body in seen} == {"Which tools?", "What tools?"}  # type: ignore[index]


async def test_a_failing_engine_keeps_the_older_profile(database: Database) -> None:
    await keep(database, "I love jazz")
    first = await extract(database, saying(lambda question, sample: ["I love jazz"], contrast=lambda text: 3.0))
    with pytest.raises(EngineUnavailable):
        await extract(database, httpx.MockTransport(lambda request: httpx.Response(500)))
    assert await latest(database) == first
