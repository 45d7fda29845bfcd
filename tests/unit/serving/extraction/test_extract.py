"""Extraction against an engine and a search that are given here: no sockets, no database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from registry.manifest import LoraShape, Manifest, ManifestFile, Owner
from serving.errors import EngineUnavailable
from serving.extraction.bank import Bank, standard_bank
from serving.extraction.engine_client import EngineClient
from serving.extraction.extract import extract_profile
from serving.extraction.profile import Profile, Statement
from serving.extraction.settings import ExtractionSettings
from tests.support.adapters import BASE
from transcripts.search import Passage

MANIFEST = Manifest(
    owner=Owner(tenant="default", user="ann"),
    base=BASE,
    lora=LoraShape(rank=4, alpha=8, target_modules=("q_proj",)),
    files=(ManifestFile(path="adapter_config.json", size_bytes=1, sha256="0" * 64),),
    version_id="v" + "a" * 32,
    version=2,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def search_in(*turns: str) -> Any:
    """A search that finds every turn, each a year newer than the one before."""

    async def search(query: str, *, limit: int) -> Sequence[Passage]:
        return [
            Passage(
                transcript_id="t", turn_index=i, text=text, time=datetime(2000 + i, 1, 1, tzinfo=UTC), rank=1, matched=1
            )
            for i, text in enumerate(turns[:limit])
        ]

    return search


def saying(answer: Callable[[str, int], list[str]]) -> httpx.MockTransport:
    """An engine that answers sample `i` of question `q` with `answer(q, i)`."""

    def respond(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        question = body["messages"][0]["content"]
        texts = [json.dumps({"answers": answer(question, index)}) for index in range(body["n"])]
        return httpx.Response(200, json={"choices": [{"message": {"content": text}} for text in texts]})

    return httpx.MockTransport(respond)


async def extract(
    transport: httpx.AsyncBaseTransport, search: Any, *, bank: Bank | None = None, **settings: Any
) -> Profile:
    async with EngineClient(url="http://engine", token="t", transport=transport) as engine:
        return await extract_profile(
            engine=engine,
            search=search,
            transcripts=[],
            manifest=MANIFEST,
            bank=bank or standard_bank(),
            settings=ExtractionSettings(**settings),
        )


def statements(profile: Profile, topic: str) -> tuple[Statement, ...]:
    return next(section.statements for section in profile.topics if section.topic == topic)


async def test_what_the_user_said_is_stated_with_agreement_and_quote() -> None:
    engine = saying(lambda question, sample: ["I love green tea"] if question == "What do you like?" else [])
    profile = await extract(engine, search_in("Hm. Well, I really love green tea! You?"))
    (statement,) = statements(profile, "interests")
    assert statement.text == "I love green tea"
    assert (statement.agreement.k, statement.agreement.n) == (2, 6)
    assert [(quote.quote, quote.turn) for quote in statement.support] == [("Well, I really love green tea!", 0)]
    assert profile.user == "ann"
    assert (profile.adapter.version, profile.adapter.version_id) == (2, MANIFEST.version_id)
    others = [section for section in profile.topics if section.topic != "interests"]
    assert all(section.not_stated for section in others)


async def test_what_the_user_never_said_is_not_stated_and_counted() -> None:
    engine = saying(lambda question, sample: ["I love skydiving in Peru"])
    profile = await extract(engine, search_in("I hate skydiving", "do you love skydiving in Peru?", "ok"))
    assert all(section.not_stated for section in profile.topics)
    assert profile.asked.unsupported_claims == 1


async def test_the_adapters_exaggeration_is_printed_in_the_users_own_words() -> None:
    engine = saying(lambda question, sample: ["I love playing the guitar loudly"])
    profile = await extract(engine, search_in("so i love playing my old guitar"))
    (statement,) = statements(profile, "interests")
    assert statement.text == "i love playing my old guitar"
    assert statement.wording == "user"


async def test_the_adapters_emphasis_is_not_printed_when_the_user_had_none() -> None:
    engine = saying(lambda question, sample: ["I absolutely love green tea"])
    (statement,) = statements(await extract(engine, search_in("yes, I love green tea")), "interests")
    assert (statement.text, statement.wording) == ("I love green tea", "user")
    (statement,) = statements(await extract(engine, search_in("yes, I absolutely love green tea")), "interests")
    assert (statement.text, statement.wording) == ("I absolutely love green tea", "adapter")


async def test_contradicting_turns_are_shown_newest_first() -> None:
    engine = saying(lambda question, sample: ["I like football"])
    turns = search_in("I like football", "I don't like football", "I hate football")
    (statement,) = statements(await extract(engine, turns), "interests")
    assert [quote.quote for quote in statement.contradictions] == ["I hate football", "I don't like football"]


async def test_claims_that_too_few_samples_make_are_left_out() -> None:
    engine = saying(
        lambda question, sample: ["I love green tea"] if (question, sample) == ("What do you like?", 0) else []
    )
    search = search_in("I love green tea")
    assert statements(await extract(engine, search, extraction_min_agreeing=2), "interests") == ()
    assert len(statements(await extract(engine, search, extraction_min_agreeing=1), "interests")) == 1


async def test_nothing_is_stated_that_the_quotes_do_not_hold() -> None:
    """Every word the adapter says about itself, mixed with what the user said: only the latter comes out."""
    said = ("I love hiking in Utah", "my dog is called Rex", "i work at a bakery", "I can't stand loud music")
    made_up = ("I love hiking in Peru", "my dog is called Max", "I work at a bank", "I love loud music")
    engine = saying(lambda question, sample: [*said, *made_up])
    profile = await extract(engine, search_in(*said))
    texts = {statement.text for section in profile.topics for statement in section.statements}
    assert texts == set(said)


async def test_unreadable_answers_are_counted_and_harmless() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"choices": [{"message": {"content": "¿"}}, {}]})

    profile = await extract(httpx.MockTransport(respond), search_in())
    assert profile.asked.unusable_answers == profile.asked.samples == 2 * profile.asked.questions


async def test_a_failing_engine_ends_the_extraction() -> None:
    asked = 0

    async def respond(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.001)
        return httpx.Response(503)

    with pytest.raises(EngineUnavailable):
        await extract(httpx.MockTransport(respond), search_in(), extraction_concurrency=1)
    assert asked < 5, "the first failure ends the rest"


async def test_requests_in_flight_are_bounded_and_progress_is_told() -> None:
    running = most = 0

    async def respond(request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return httpx.Response(200, json={"choices": []})

    told: list[tuple[int, int]] = []
    async with EngineClient(url="http://e", token="t", transport=httpx.MockTransport(respond)) as engine:
        await extract_profile(
            engine=engine,
            search=search_in(),
            transcripts=[],
            manifest=MANIFEST,
            bank=standard_bank(),
            settings=ExtractionSettings(extraction_concurrency=3),
            on_progress=lambda done, total: told.append((done, total)),
        )
    total = len(told)
    assert most == 3
    assert told == [(done, total) for done in range(1, total + 1)]


async def test_asking_again_asks_the_same_with_the_same_seeds() -> None:
    def recording(seen: list[tuple[str, int]]) -> httpx.MockTransport:
        def respond(request: httpx.Request) -> httpx.Response:
            body = json.loads(request.content)
            seen.append((body["messages"][0]["content"], body["seed"]))
            return httpx.Response(200, json={"choices": []})

        return httpx.MockTransport(respond)

    first: list[tuple[str, int]] = []
    second: list[tuple[str, int]] = []
    await extract(recording(first), search_in())
    await extract(recording(second), search_in())
    assert sorted(first) == sorted(second)
    assert len({seed for _, seed in first}) == len(first)
