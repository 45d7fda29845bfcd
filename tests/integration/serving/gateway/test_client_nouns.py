"""Every noun of `lorry.client` against a real gateway, registry, training service, PostgreSQL and S3."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lorry.client import (
    AsyncClient,
    Client,
    Conflict,
    Invalid,
    NotFound,
    Profile,
    Statement,
    Training,
    Transcript,
    Turn,
    Unavailable,
)
from serving.erasure.report import STORES
from tests.support.clients import Cutting, Narrow, in_thread
from tests.support.erasing import Erasing
from tests.support.gateway_server import Gateway, StandInEngine
from tests.support.waiting import until

OWN_BANK = """
name: acme.bank
version: "1"
extends: lorry.standard
leave_out: [opinions]
"""


@pytest.fixture
async def extracted(gateway: Gateway, lorry: AsyncClient, stand_in: StandInEngine) -> dict[str, Statement]:
    """What the profile of ann states, by text: she loves green tea and hates mornings."""
    stand_in.answer = lambda body: json.dumps({"answers": ["I love green tea", "I hate mornings"]})
    await gateway.say("ann", "I love green tea", "I hate mornings")
    await gateway.publish("ann")
    return stated(await lorry.profiles.extract("ann"))


def stated(profile: Profile) -> dict[str, Statement]:
    return {each.text: each for each in profile.statements}


async def test_facts_are_edited_confirmed_forbidden_listed_and_withdrawn(
    gateway: Gateway, lorry: AsyncClient, extracted: dict[str, Statement]
) -> None:
    confirmed = await in_thread(gateway, lambda client: client.corrections.confirm("ann", "I love green tea", by="eve"))
    assert (confirmed.kind, confirmed.made_by) == ("confirm", "eve")
    edited = await lorry.corrections.edit("ann", extracted["I love green tea"].id, text="Drinks matcha", by="bob")
    assert (edited.kind, edited.text) == ("edit", "I love green tea")
    assert edited.statement is not None
    assert edited.statement.text == "Drinks matcha"
    forbidden = await lorry.corrections.forbid("ann", "I hate mornings", by="bob")
    (matcha,) = (await lorry.profiles.get("ann")).statements
    assert matcha.correction is not None
    assert (matcha.text, matcha.correction.by) == ("Drinks matcha", "bob")
    listed = await lorry.corrections.list("ann")
    assert [each.id for each in listed] == [edited.id, forbidden.id], "an edit is in the place of the confirmation"
    assert await in_thread(gateway, lambda client: client.corrections.list("ann")) == listed
    await lorry.corrections.withdraw("ann", forbidden.id, by="eve")
    every = {each.id: each for each in await lorry.corrections.list("ann", withdrawn=True)}
    assert every.keys() == {confirmed.id, edited.id, forbidden.id}
    assert (every[forbidden.id].withdrawn_by, every[forbidden.id].text) == ("eve", "I hate mornings")
    with pytest.raises(NotFound) as missing:
        await lorry.corrections.withdraw("ann", forbidden.id, by="eve")
    assert missing.value.code == "correction-not-found"
    with pytest.raises(NotFound) as unknown:
        await lorry.corrections.edit("ann", "I love skydiving", text="x", by="bob")
    assert unknown.value.code == "fact-not-found"


async def test_a_profile_is_made_short_compared_and_not_sent_twice(
    gateway: Gateway, lorry: AsyncClient, extracted: dict[str, Statement]
) -> None:
    whole = await lorry.profiles.context("ann")
    short = await in_thread(gateway, lambda client: client.profiles.context("ann", budget_tokens=64))
    assert "I love green tea" in whole
    assert len(short.encode()) <= 3 * 64
    with pytest.raises(Invalid):
        await lorry.profiles.context("ann", budget_tokens=63)
    tea = extracted["I love green tea"]
    assert ([quote.quote for quote in tea.support], tea.correction) == (["I love green tea"], None)
    assert tea.confidence > 0.5
    difference = await lorry.profiles.difference("ann")
    assert {change.text for change in difference.added} == set(extracted)
    assert await in_thread(gateway, lambda client: client.profiles.difference("ann")) == difference
    known = await lorry.get_profile("ann")
    assert await lorry.get_profile("ann", known=known) is known
    await lorry.corrections.forbid("ann", "I hate mornings", by="bob")
    newer = await lorry.get_profile("ann", known=known)
    assert set(stated(newer)) == {"I love green tea"}


async def test_a_bank_is_put_read_and_given_up(gateway: Gateway, lorry: AsyncClient) -> None:
    assert (await lorry.bank.get()).revision is None
    put = await lorry.bank.put(OWN_BANK, by="grace")
    assert (put.bank.name, put.revision, put.made_by, put.document) == ("acme.bank", 1, "grace", OWN_BANK)
    assert "opinions" not in {topic.topic for topic in put.bank.topics}
    assert all(question.paraphrases for topic in put.bank.topics for question in topic.questions)
    assert await in_thread(gateway, lambda client: client.bank.get()) == put
    with pytest.raises(Invalid) as refused:
        await lorry.bank.put(OWN_BANK.replace("leave_out: [opinions]", "leave_out: 3"), by="grace")
    assert (refused.value.code, refused.value.field) == ("bank-invalid", "leave_out")
    assert (await lorry.bank.reset(by="grace")).bank.name == "lorry.standard"


async def test_adapters_are_listed_shown_compared_and_found(gateway: Gateway, lorry: AsyncClient) -> None:
    first = await gateway.publish("ann", seed=1)
    second = await gateway.publish("ann", seed=2)
    await gateway.publish("bob", seed=3)
    assert sorted([each.owner.user async for each in lorry.adapters.list()]) == ["ann", "bob"]
    only = [each async for each in lorry.adapters.list(user="ann", alias="live", suspended=False)]
    assert [each.owner.user for each in only] == ["ann"]
    shown = await lorry.adapters.get("ann")
    assert (shown.aliases["live"], shown.states) == (second.version_id, {"ready": 2})
    versions = [each async for each in lorry.adapters.versions("ann")]
    assert [each.version_id for each in versions] == [second.version_id, first.version_id]
    assert (await lorry.adapters.version("ann")).version == 2
    assert (await lorry.adapters.version("ann", "1")).version_id == first.version_id
    assert (await lorry.adapters.get_alias("ann")).version_id == second.version_id
    compared = await lorry.adapters.difference("ann", old="1")
    assert (compared.old.version, compared.new.version) == (1, 2)
    found = [each async for each in lorry.adapters.find_versions(user="ann", base=versions[0].base_id)]
    assert [each.version for each in found] == [1, 2]

    def blocking(client: Client) -> list[Any]:
        return [
            client.adapters.get("ann"),
            list(client.adapters.versions("ann")),
            client.adapters.difference("ann", old="1"),
            list(client.adapters.find_versions(user="ann")),
        ]

    assert await in_thread(gateway, blocking) == [shown, versions, compared, found]
    with pytest.raises(NotFound) as missing:
        await lorry.adapters.version("ann", "7")
    assert missing.value.code == "version-not-found"


async def test_adapters_are_promoted_rolled_back_suspended_and_retired(gateway: Gateway, lorry: AsyncClient) -> None:
    first = await gateway.publish("ann", seed=1)
    second = await gateway.publish("ann", seed=2, live=False)
    moved = await lorry.adapters.move_alias(
        "ann", "candidate", version_id=second.version_id, expected_version_id=None, why="try it"
    )
    assert moved.version_id == second.version_id
    with pytest.raises(Conflict) as conflict:
        await lorry.adapters.move_alias(
            "ann", "candidate", version_id=first.version_id, expected_version_id=first.version_id
        )
    assert conflict.value.problem["current_version_id"] == second.version_id
    promoted = await in_thread(gateway, lambda client: client.adapters.promote("ann", why="it is better"))
    assert (promoted.alias, promoted.version, promoted.before_version) == ("live", 2, 1)
    once = lorry.with_idempotency_key("undo")
    back = await once.adapters.rollback("ann", expected_version_id=second.version_id)
    assert (back.version, await once.adapters.rollback("ann", expected_version_id=second.version_id)) == (1, back)
    moves = [each async for each in lorry.adapters.history("ann", alias="live")]
    assert [each.action for each in moves] == ["rollback", "promote", "move"]
    assert (await lorry.adapters.suspend("ann", why="ticket 7")).why == "ticket 7"
    assert [each.owner.user async for each in lorry.adapters.list(suspended=True)] == ["ann"]
    assert not (await lorry.adapters.resume("ann", why="ticket 7")).suspended
    assert (await lorry.adapters.suspend_version("ann", "2", why="ticket 8")).state == "suspended"
    assert (await lorry.adapters.resume_version("ann", "2", why="ticket 8")).state == "ready"
    with pytest.raises(Conflict) as in_use:
        await lorry.adapters.retire_version("ann", "1", why="old")
    assert in_use.value.code == "version-in-use"


async def test_models_are_listed_and_a_chat_is_heard_as_it_is_spoken(gateway: Gateway, lorry: AsyncClient) -> None:
    for user in ("ann", "bob"):
        await gateway.publish(user)
    models = [each async for each in lorry.models.list()]
    assert [each.id for each in models] == ["users/ann", "users/bob"]
    shown = await lorry.models.get("users/ann")
    assert (shown.id, shown.owned_by) == ("users/ann", "default")
    assert (await in_thread(gateway, lambda client: client.models.get("users/bob@1"))).id == "users/bob@1"
    with pytest.raises(NotFound):
        await lorry.models.get("users/bob@7")
    async with lorry.stream_chat("ann", [{"role": "user", "content": "?"}], max_tokens=5) as stream:
        assert stream.adapter_version == 1
        assert [piece async for piece in stream] == ["word0 ", "word1 ", "word2 "]

    def blocking(client: Client) -> Any:
        with client.stream_chat("ann@1", [{"role": "user", "content": "?"}]) as stream:
            return "".join(stream), stream.adapter_version

    assert await in_thread(gateway, blocking) == ("word0 word1 word2 ", 1)


async def test_a_chat_that_is_left_frees_the_engine_and_one_that_breaks_off_raises(
    gateway: Gateway, lorry: AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.break_off_after = 1
    pieces: list[str] = []

    async def listen() -> None:
        async with lorry.stream_chat("ann", [{"role": "user", "content": "?"}]) as stream:
            async for piece in stream:
                pieces.append(piece)

    with pytest.raises(Unavailable, match="engine"):
        await listen()
    assert pieces == ["word0 "]
    stand_in.break_off_after, stand_in.seconds_between_events, stand_in.events = None, 0.05, 1000
    async with lorry.stream_chat("ann", [{"role": "user", "content": "?"}]) as stream:
        await anext(aiter(stream))
        assert stand_in.running == 1
    await until(lambda: not stand_in.running)


async def test_a_trainings_events_are_read_and_watched_over_a_network_that_fails(
    gateway: Gateway, lorry: AsyncClient
) -> None:
    await gateway.say("ann", *[f"I love boat number {number}" for number in range(20)])
    training = await lorry.trainings.submit("ann", why="asked for")
    assert training.why == "asked for"
    events = [each async for each in lorry.trainings.events(training.id)]
    assert [each.kind for each in events] == ["submitted"]
    assert [each async for each in lorry.trainings.events(training.id, after=events[-1].id)] == []
    await lorry.trainings.cancel(training.id)
    every = await in_thread(gateway, lambda client: list(client.trainings.events(training.id)))
    whole = [each async for each in lorry.trainings.watch(training.id)]
    assert [each.id for each in whole if each.name == "event"] == [each.id for each in every]
    assert Training.model_validate(whole[-1].data).ended
    cutting = Cutting(cuts=2)
    async with AsyncClient(url=gateway.url, key=gateway.key, transport=cutting) as far:
        assert [each async for each in far.trainings.watch(training.id)] == whole
    assert cutting.cuts < 2
    assert await in_thread(gateway, lambda client: list(client.watch_training(training.id))) == whole


async def test_a_call_under_a_key_of_ones_own_is_done_once_and_another_under_it_is_refused(
    gateway: Gateway, lorry: AsyncClient
) -> None:
    await gateway.say("ann", *[f"I love boat number {number}" for number in range(20)])
    once = lorry.with_idempotency_key("nightly-7")
    training = await once.submit_training("ann")
    again = await in_thread(gateway, lambda client: client.with_idempotency_key("nightly-7").submit_training("ann"))
    assert again == training
    with pytest.raises(Conflict) as other:
        await once.trainings.submit("ann", why="another")
    assert other.value.code == "idempotency-conflict"
    with pytest.raises(Conflict):
        await lorry.submit_training("ann")


async def test_listings_are_read_over_all_their_pages(gateway: Gateway) -> None:
    network = Narrow()
    async with AsyncClient(url=gateway.url, key=gateway.key, transport=network) as lorry:
        talks = [Transcript(name=f"t{n}", turns=[Turn(role="user", text=f"tea number {n}")]) for n in range(5)]
        await lorry.put_transcripts("ann", talks)
        heads = [head.names async for head in lorry.transcripts.list("ann")]
        assert (sorted(heads), network.pages) == ([[f"t{n}"] for n in range(5)], 3)
        for seed in range(1, 4):
            await gateway.publish("ann", seed=seed)
            await gateway.publish(f"user-{seed}", seed=seed)
        network.pages = 0
        assert [each.version async for each in lorry.adapters.versions("ann")] == [3, 2, 1]
        assert [each.version async for each in lorry.adapters.history("ann", alias="live")] == [3, 2, 1]
        assert len([each async for each in lorry.adapters.find_versions()]) == 6
        assert len([each async for each in lorry.adapters.list()]) == 4
        assert len([each async for each in lorry.models.list()]) == 4
        assert network.pages >= 11
        batches = [(await lorry.extractions.submit([f"user-{n}"])).id for n in range(3)]
        network.pages = 0
        assert [each.id async for each in lorry.extractions.list(states=["queued"])] == batches[::-1]
        assert network.pages == 2


async def test_an_erasure_is_asked_for_and_watched_until_nothing_is_left(gateway: Gateway, lorry: AsyncClient) -> None:
    with pytest.raises(NotFound) as unknown:
        await lorry.erasures.ask("ann")
    assert unknown.value.code == "unknown-user"
    with pytest.raises(NotFound) as never:
        await lorry.erasures.get("ann")
    assert never.value.code == "never-erased"
    await lorry.put_transcript("ann", Transcript(name="t1", turns=[Turn(role="user", text="I love tea")]))
    asked = await lorry.erasures.ask("ann")
    assert (asked.state, tuple(each.store for each in asked.stores), asked.ended) == ("running", STORES, False)
    assert (await in_thread(gateway, lambda client: client.erasures.ask("ann"))).id == asked.id
    with pytest.raises(Conflict) as erasing:
        await lorry.get_profile("ann")
    assert erasing.value.code == "being-erased"
    stop, conductor = asyncio.Event(), Erasing(database=gateway.database, registry=gateway.registry).conductor
    conducting = asyncio.create_task(conductor.run(stop))
    try:
        async with asyncio.timeout(60):
            reports = [report async for report in lorry.erasures.watch("ann", every_seconds=0.05)]
    finally:
        stop.set()
        await conducting
    assert (reports[-1].state, reports[-1].ended, reports[-1].waits_for) == ("done", True, ())
    (transcripts,) = [each for each in reports[-1].stores if each.store == "transcripts"]
    assert transcripts.found
    assert await in_thread(gateway, lambda client: list(client.erasures.watch("ann"))) == [reports[-1]]
