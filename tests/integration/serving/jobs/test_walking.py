"""Users of batches are walked by a worker in this process: order, bounds, failures, steering."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import groupby

import pytest

from registry.manifest import Owner
from serving.extraction.bank.shelf import BankShelf
from serving.extraction.profile import Profile
from serving.extraction.repository import ProfileRepository
from serving.jobs.states import BatchState
from tests.support.extraction_jobs import Engine, Mill

USERS = ("ann", "bob", "cy", "dee", "eve", "fay")


async def test_every_user_is_extracted_once_in_adapter_order_and_the_results_are_profiles(
    mill: Mill, stand_in: Engine
) -> None:
    await mill.add_users(*USERS)
    batch = await mill.submit(*reversed(USERS))
    assert (batch.state, batch.progress.users, batch.progress.waiting) == (BatchState.QUEUED, 6, 6)
    async with mill.working(extraction_users_at_once=1):
        ended = await mill.until_ended(batch.id)
    assert (ended.state, ended.progress.done, ended.failures) == (BatchState.DONE, 6, {})
    walked = [version_id for version_id, _ in groupby(stand_in.asked)]
    assert walked == sorted(mill.versions.values()), "each adapter is asked in one go"
    lines = await mill.lines(batch.id)
    assert [line["sequence"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["version_id"] for line in lines] == walked
    assert Counter(line["user_id"] for line in lines) == Counter(USERS)
    for line in lines:
        profile = Profile.model_validate(line["profile"])
        assert (profile.user, line["status"], line["error"]) == (line["user_id"], "done", None)
        assert profile.topics[0].statements[0].text == "I love green tea"
        async with mill.database.reading() as session:
            assert await ProfileRepository(session).latest("default", line["user_id"]) == profile


async def test_requests_are_of_class_batch_and_the_next_adapters_are_prefetched(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users("ann", "bob", "cy")
    async with mill.working(extraction_users_at_once=1, extraction_prefetch=1):
        await mill.until_ended((await mill.submit("ann", "bob", "cy")).id)
    assert {headers["x-lorry-class"] for headers in stand_in.headers} == {"batch"}
    assert stand_in.hints == [(version_id, "batch") for version_id in sorted(mill.versions.values())[1:]]


async def test_as_many_users_are_in_hand_as_the_worker_may_have_and_no_more(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users(*USERS)
    stand_in.open.clear()
    batch = await mill.submit(*USERS)
    async with mill.working(extraction_users_at_once=3):
        await mill.until(lambda: stand_in.most_at_once == 3, what="three at once")
        await asyncio.sleep(0.3)
        found = (await mill.get(batch.id)).progress
        assert (found.in_hand, found.waiting, stand_in.most_at_once) == (3, 3, 3)
        stand_in.open.set()
        await mill.until_ended(batch.id)
    assert stand_in.most_at_once == 3


async def test_everybody_with_a_live_adapter_is_found_and_nobody_elses(mill: Mill) -> None:
    await mill.add_users("ann", "bob")
    await mill.add_users("zoe", tenant="other")
    await mill.gateway.publish("waits", live=False, seed=50)
    batch = await mill.submit()
    async with mill.working():
        ended = await mill.until_ended(batch.id)
    assert ended.progress.users == 2
    assert {line["user_id"] for line in await mill.lines(batch.id)} == {"ann", "bob"}


async def test_users_without_an_adapter_fail_alone_with_the_reason(mill: Mill) -> None:
    await mill.add_users("ann")
    await mill.gateway.publish("unready", live=False, seed=50)
    batch = await mill.submit("ann", "nobody", "unready")
    async with mill.working():
        ended = await mill.until_ended(batch.id)
    assert (ended.state, ended.progress.done, ended.progress.failed) == (BatchState.DONE, 1, 2)
    assert ended.failures == {"adapter-not-found": 1, "alias-not-found": 1}
    lines = {line["user_id"]: line for line in await mill.lines(batch.id)}
    assert lines["nobody"]["error"]["code"] == "adapter-not-found"
    assert lines["nobody"]["profile"] is None
    assert lines["ann"]["status"] == "done"


async def test_only_the_stale_are_extracted_when_that_is_asked(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users("ann", "bob", "cy")
    async with mill.working():
        await mill.until_ended((await mill.submit("ann", "bob")).id)
        moved = await mill.gateway.publish("bob", seed=77)
        stand_in.asked.clear()
        batch = await mill.submit(only="stale")
        ended = await mill.until_ended(batch.id)
        assert (ended.progress.skipped, ended.progress.done) == (1, 2)
        assert set(stand_in.asked) == {moved.version_id, mill.versions["cy"]}
        aged = await mill.until_ended((await mill.submit("ann", only="stale", max_age_days=0)).id)
        assert aged.progress.done == 1
    skipped = [line for line in await mill.lines(batch.id) if line["status"] == "skipped"]
    assert [(line["user_id"], line["profile"]) for line in skipped] == [("ann", None)]


async def test_who_was_asked_a_tenants_own_bank_is_not_stale_by_it(mill: Mill) -> None:
    document = (
        "{name: acme.bank, version: '1', extends: lorry.standard, topics: [{topic: tools, title: Tools, "
        "cues: [hammer], questions: [{id: tools.own, paraphrases: [Which tools, What tools], "
        "answer_schema: {type: string}}]}]}"
    )
    await mill.add_users("ann")
    shelf = BankShelf(mill.database)
    await shelf.put("default", document, by="bob")
    async with mill.working():
        await mill.until_ended((await mill.submit("ann")).id)
        again = await mill.until_ended((await mill.submit("ann", only="stale")).id)
        assert (again.progress.skipped, again.progress.done) == (1, 0)
        await shelf.put("default", None, by="bob")
        other = await mill.until_ended((await mill.submit("ann", only="stale")).id)
        assert (other.progress.skipped, other.progress.done) == (0, 1)


async def test_a_failure_that_may_pass_is_tried_again_and_others_go_on_meanwhile(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users("ann", "bob")
    poison, refusals = mill.versions["ann"], iter([429, 503, 409])
    stand_in.refuses = lambda version_id: next(refusals, None) if version_id == poison else None
    batch = await mill.submit("ann", "bob")
    async with mill.working() as worker:
        ended = await mill.until_ended(batch.id)
        exposed = (await worker.metrics.render(mill.database)).decode()
    assert (ended.progress.done, ended.progress.failed) == (2, 0)
    assert [line["user_id"] for line in await mill.lines(batch.id)] == ["bob", "ann"]
    assert 'lorry_extraction_users_total{outcome="again"} 3.0' in exposed
    assert 'lorry_extraction_users_total{outcome="done"} 2.0' in exposed


async def test_a_user_whom_no_attempt_helps_is_given_up_after_so_many(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users("ann", "bob")
    poison = mill.versions["ann"]
    stand_in.refuses = lambda version_id: 429 if version_id == poison else None
    async with mill.working(extraction_attempts=3):
        ended = await mill.until_ended((await mill.submit("ann", "bob")).id)
    assert (ended.progress.done, ended.failures) == (1, {"engine-refused": 1})
    assert stand_in.asked.count(poison) == 3


async def test_a_request_that_the_engine_cannot_take_is_not_tried_again(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users("ann")
    stand_in.refuses = lambda version_id: 400
    async with mill.working():
        ended = await mill.until_ended((await mill.submit("ann")).id)
    assert ended.failures == {"engine-refused": 1}
    assert len(stand_in.asked) == 1


async def test_a_user_who_takes_too_long_is_let_go_and_tried_again(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users("ann")
    stand_in.open.clear()
    async with mill.working(extraction_user_seconds=0.3, extraction_attempts=2):
        ended = await mill.until_ended((await mill.submit("ann")).id)
    assert ended.failures == {"took-too-long": 1}


async def test_a_paused_batch_delivers_who_is_in_hand_and_goes_on_when_it_is_resumed(
    mill: Mill, stand_in: Engine
) -> None:
    await mill.add_users(*USERS)
    stand_in.open.clear()
    batch = await mill.submit(*USERS)
    async with mill.working(extraction_users_at_once=2):
        await mill.until(lambda: stand_in.most_at_once == 2, what="two at once")
        paused = await mill.batches.pause(batch.id, tenant="default")
        assert (paused.state, paused.progress.in_hand, paused.progress.eta_seconds) == (BatchState.PAUSED, 2, None)
        stand_in.open.set()

        async def delivered() -> bool:
            return (await mill.get(batch.id)).progress.done == 2

        await mill.until(delivered, what="the two")
        await asyncio.sleep(0.3)
        assert (await mill.get(batch.id)).progress.waiting == 4
        await mill.batches.resume(batch.id, tenant="default")
        ended = await mill.until_ended(batch.id)
    assert (ended.state, ended.progress.done) == (BatchState.DONE, 6)


async def test_a_batch_that_is_paused_before_it_is_planned_is_planned_when_it_is_resumed(mill: Mill) -> None:
    await mill.add_users("ann")
    batch = await mill.submit("ann")
    await mill.batches.pause(batch.id, tenant="default")
    async with mill.working():
        await asyncio.sleep(0.3)
        assert (await mill.get(batch.id)).planned_at is None
        assert (await mill.batches.resume(batch.id, tenant="default")).state is BatchState.QUEUED
        assert (await mill.until_ended(batch.id)).progress.done == 1


async def test_a_canceled_batch_lets_go_of_who_is_in_hand_and_keeps_what_was_delivered(
    mill: Mill, stand_in: Engine
) -> None:
    await mill.add_users(*USERS)
    slow = sorted(mill.versions.values())[1]
    batch = await mill.submit(*USERS)
    async with mill.working(extraction_users_at_once=1):
        stand_in.hold_at(slow)
        await mill.until(lambda: slow in stand_in.asked, what="the second user")
        canceled = await mill.batches.cancel(batch.id, tenant="default")
        assert (canceled.state, canceled.progress.canceled, canceled.progress.done) == (BatchState.CANCELED, 5, 1)
        await mill.until(lambda: sum(stand_in.now.values()) == 0, what="the request's end")
        stand_in.open.set()
        await asyncio.sleep(0.3)
    ended = await mill.get(batch.id)
    assert (ended.state, ended.progress.canceled, ended.progress.done) == (BatchState.CANCELED, 5, 1)
    assert len(await mill.lines(batch.id)) == 1


async def test_a_short_batch_is_not_held_up_by_another_tenants_long_one(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users(*USERS)
    await mill.add_users("zoe", tenant="other")
    long = await mill.submit(*USERS)
    stand_in.open.clear()
    async with mill.working(extraction_users_at_once=2):
        await mill.until(lambda: stand_in.most_at_once == 2, what="two at once")
        await mill.submit("zoe", tenant="other")

        async def planned() -> bool:
            return (await mill.batches.list(tenant="other"))[0].state is BatchState.RUNNING

        await mill.until(planned, what="the plan")
        stand_in.open.set()
        await mill.until_ended(long.id)
    order = list(dict.fromkeys(stand_in.asked))
    assert order.index(mill.versions["zoe"]) <= 3


async def test_the_eta_is_measured_once_enough_users_have_ended(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users(*USERS)
    order = sorted(mill.versions.values())
    stand_in.hold_at(order[3])
    batch = await mill.submit(*USERS)
    assert batch.progress.eta_seconds is None
    async with mill.working(extraction_users_at_once=1):
        await mill.until(lambda: order[3] in stand_in.asked, what="the fourth user")

        async def three() -> bool:
            return (await mill.get(batch.id)).progress.done == 3

        await mill.until(three, what="three users")
        found = (await mill.get(batch.id)).progress
        assert found.users_per_minute is not None
        assert found.eta_seconds == pytest.approx(3 * 60 / found.users_per_minute)
        stand_in.open.set()
        await mill.until_ended(batch.id)


async def test_the_version_that_is_live_when_the_users_turn_comes_is_asked(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users("ann", "bob")
    first, second = sorted(mill.versions, key=lambda user: mill.versions[user])
    batch = await mill.submit("ann", "bob")
    stand_in.open.clear()
    async with mill.working(extraction_users_at_once=1, extraction_prefetch=0):
        await mill.until(lambda: mill.versions[first] in stand_in.asked, what="the first user")
        moved = await mill.gateway.publish(second, seed=99)
        stand_in.open.set()
        await mill.until_ended(batch.id)
    assert {line["user_id"]: line["version_id"] for line in await mill.lines(batch.id)}[second] == moved.version_id


async def test_a_result_cannot_be_read_once_its_user_is_erased(mill: Mill) -> None:
    await mill.add_users("ann", "bob")
    batch = await mill.submit("ann", "bob")
    async with mill.working():
        await mill.until_ended(batch.id)
    erased = Owner(tenant="default", user="ann")
    await mill.gateway.registry.lifecycle.erase_owner(erased, why="asked to", force=True)
    lines = {line["user_id"]: line for line in await mill.lines(batch.id)}
    assert lines["ann"]["profile"] is None
    assert "not readable any more" in lines["ann"]["error"]["message"]
    assert lines["bob"]["profile"] is not None
