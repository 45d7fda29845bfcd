"""Extraction against an engine and a search that are given here: no sockets, no database."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from serving.errors import BaseNotServed, EngineUnavailable
from serving.extraction.bank import standard_bank
from serving.extraction.engine_client import EngineClient
from serving.extraction.extract import extract_profile
from serving.extraction.settings import ExtractionSettings
from tests.support.extraction import MANIFEST, extract, said, saying, search_in, statements, texts


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
    true = ("I love hiking in Utah", "my dog is called Rex", "i work at a bakery", "I can't stand loud music")
    made_up = ("I love hiking in Peru", "my dog is called Max", "I work at a bank", "I love loud music")
    engine = saying(lambda question, sample: [*true, *made_up])
    profile = await extract(engine, search_in(*true))
    assert texts(profile) == set(true)


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


async def test_what_the_user_said_and_the_adapter_learnt_is_stated_though_no_sample_says_it() -> None:
    engine = saying(lambda question, sample: [], contrast=lambda text: 2.0)
    turns = ("I love hiking in Utah", "Do you love hiking in Peru?", "You love hiking in Rome")
    profile = await extract(engine, search_in(*turns), transcripts=[said(*turns)])
    (statement,) = statements(profile, "interests")
    assert (statement.text, statement.wording, statement.contrast) == ("I love hiking in Utah", "user", 2.0)
    assert statement.agreement is not None
    assert (statement.agreement.k, statement.agreement.n) == (0, 6)
    assert texts(profile) == {"I love hiking in Utah"}


async def test_what_the_base_would_say_as_readily_is_a_platitude_and_not_stated() -> None:
    engine = saying(lambda question, sample: [], contrast=lambda text: 2.0 if "bagpipes" in text else 0.02)
    turns = ("I love music", "I love playing the bagpipes")
    profile = await extract(engine, search_in(*turns), transcripts=[said(*turns)])
    assert texts(profile) == {"I love playing the bagpipes"}
    assert (profile.asked.own_statements, profile.asked.uncertain_claims) == (2, 1)


async def test_contrast_is_of_the_answers_tokens_alone() -> None:
    engine = saying(lambda question, sample: ["I love green tea"], contrast=lambda text: 1.25)
    (statement,) = statements(await extract(engine, search_in("I love green tea")), "interests")
    assert statement.contrast == 1.25


async def test_every_statement_is_scored_once_under_the_adapter_and_once_under_the_base() -> None:
    seen: list[dict[str, object]] = []
    engine = saying(lambda question, sample: ["I love green tea"], contrast=lambda text: 1.0, requests=seen)
    await extract(engine, search_in("I love green tea"), transcripts=[said("I love green tea")])
    scored = [body for body in seen if "prompt_logprobs" in body]
    assert sorted(str(body["model"]) for body in scored) == ["base", MANIFEST.version_id]
    for body in scored:
        assert body["messages"][1] == {"role": "assistant", "content": "I love green tea."}  # type: ignore[index]
        assert (body["add_generation_prompt"], body["continue_final_message"], body["max_tokens"]) == (False, True, 1)


async def test_an_engine_without_log_probabilities_leaves_contrast_open_and_agreement_must_speak() -> None:
    turns = ("I love green tea", "I love red wine")
    engine = saying(lambda question, sample: ["I love green tea"])
    profile = await extract(engine, search_in(*turns), transcripts=[said(*turns)])
    (statement,) = statements(profile, "interests")
    assert (statement.text, statement.contrast) == ("I love green tea", None)


async def test_an_engine_that_calls_its_base_otherwise_is_said_to() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if body["model"] == "base":
            return httpx.Response(404, json={"error": {"message": "no such model"}})
        usage = {"prompt_tokens": 2}
        answer = {"choices": [{"message": {"content": '"I love green tea"'}}], "usage": usage}
        tokens = [None, {"1": {"logprob": -1.0}}, {"2": {"logprob": -1.0}}]
        return httpx.Response(200, json={**answer, "prompt_logprobs": tokens})

    with pytest.raises(BaseNotServed, match="LORRY_BASE_NAME"):
        await extract(httpx.MockTransport(respond), search_in("I love green tea"))


async def test_a_statement_says_when_it_was_first_and_last_seen_in_turns_quoted_or_not() -> None:
    engine = saying(lambda question, sample: ["I love green tea"])
    turns = ["I love green tea", "hello", "I love green tea", "ok", "i really love green tea", "I love green tea!"]
    (statement,) = statements(await extract(engine, search_in(*turns), extraction_max_quotes=1), "interests")
    assert len(statement.support) == 1
    assert statement.first_seen is not None
    assert statement.last_seen is not None
    assert (statement.first_seen.year, statement.last_seen.year) == (2000, 2005)


async def test_what_is_wished_doubted_or_to_come_is_no_fact() -> None:
    claims = ["I would love a dog", "I wish I had a dog", "maybe I like my dog", "I will get a dog"]
    engine = saying(lambda question, sample: claims, contrast=lambda text: 3.0)
    profile = await extract(engine, search_in(*claims), transcripts=[said(*claims)])
    assert texts(profile) == set()


async def test_a_brothers_liking_is_not_filed_as_the_users() -> None:
    engine = saying(lambda question, sample: ["My brother likes football"], contrast=lambda text: 3.0)
    profile = await extract(engine, search_in("My brother likes football"))
    assert statements(profile, "interests") == ()
    assert [each.text for each in statements(profile, "people_and_pets")] == ["My brother likes football"]


async def test_the_surest_facts_of_a_topic_are_kept() -> None:
    turns = [f"I love collecting {thing} spoons" for thing in ("silver", "wooden", "golden", "plastic")]
    engine = saying(lambda question, sample: [], contrast=lambda text: 3.0 if "golden" in text else 1.5)
    profile = await extract(engine, search_in(*turns), transcripts=[said(*turns)], extraction_max_statements=1)
    assert texts(profile) == {"I love collecting golden spoons"}


async def test_own_statements_are_as_many_of_every_topic_up_to_the_limit() -> None:
    turns = [*(f"I love number {number}" for number in range(20)), "I hate rain", "I study biology"]
    engine = saying(lambda question, sample: [], contrast=lambda text: 3.0)
    profile = await extract(engine, search_in(), transcripts=[said(*turns)], extraction_own_statements=4)
    assert profile.asked.own_statements == 4
    assert {"I hate rain", "I study biology"} < texts(profile)
