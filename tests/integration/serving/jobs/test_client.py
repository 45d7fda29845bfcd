"""`lorry.client.extractions` against a real gateway, workers, PostgreSQL and S3; the page's examples with it."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from lorry.client import AsyncClient, Client, Conflict, ExtractionResult, Invalid, NotFound, RateLimited
from serving.jobs.limits import TenantLimits
from tests.support.api_page import NEED_WORKERS, examples, run_bash, run_python
from tests.support.clients import Cutting, in_thread
from tests.support.extraction_jobs import Engine, Mill

NOBODYS = "b" + "0" * 32


async def test_a_batch_is_submitted_watched_and_its_results_are_read(mill: Mill, lorry: AsyncClient) -> None:
    await mill.add_users("ann", "bob")
    batch = await lorry.extractions.submit(["ann", "bob", "nobody"])
    assert (batch.state, batch.progress.users, batch.ended) == ("queued", 3, False)
    async with mill.working(), asyncio.timeout(60):
        states = [found.state async for found in lorry.extractions.watch(batch.id, every_seconds=0.02)]
    assert states[-1] == "done"
    ended = await lorry.extractions.get(batch.id)
    assert (ended.progress.done, ended.progress.failed, ended.ended) == (2, 1, True)
    assert sum(ended.failures.values()) == 1
    results = [result async for result in lorry.extractions.results(batch.id)]
    assert [result.sequence for result in results] == [1, 2, 3]
    by_user = {result.user_id: result for result in results}
    assert (by_user["ann"].status, by_user["ann"].version, by_user["nobody"].status) == ("done", 1, "failed")
    assert by_user["ann"].profile is not None
    assert by_user["ann"].profile["user"] == "ann"
    assert by_user["nobody"].error is not None
    assert by_user["nobody"].error.code in ended.failures
    rest = await in_thread(mill.gateway, lambda client: list(client.extractions.results(batch.id, after=1)))
    assert rest == results[1:]
    assert [each.id async for each in lorry.extractions.list(states=["done"])] == [ended.id]
    assert [each async for each in lorry.extractions.list(states=["paused"])] == []


async def test_results_are_followed_over_a_network_that_fails_until_the_batch_ends(
    mill: Mill, lorry: AsyncClient, stand_in: Engine
) -> None:
    await mill.add_users("ann", "bob", "cid")
    stand_in.hold_at(sorted(mill.versions.values())[1])
    batch = await lorry.extractions.submit(everybody=True)
    heard: list[ExtractionResult] = []
    cutting = Cutting(cuts=2)

    async def follow() -> None:
        async with AsyncClient(url=mill.gateway.url, key=mill.gateway.key, transport=cutting) as far:
            async for result in far.extractions.results(batch.id, follow=True):
                heard.append(result)

    async with mill.working(extraction_users_at_once=1), asyncio.timeout(60):
        following = asyncio.create_task(follow())
        await mill.until(lambda: len(heard) == 1)
        assert not (await lorry.extractions.get(batch.id)).ended
        stand_in.open.set()
        await following
    assert [result.sequence for result in heard] == [1, 2, 3]
    assert not cutting.cuts
    assert {result.user_id for result in heard} == {"ann", "bob", "cid"}


async def test_a_batch_is_paused_resumed_and_cancelled(mill: Mill, lorry: AsyncClient) -> None:
    batch = await lorry.extractions.submit(["ann"], only="stale", max_age_days=7, webhook="https://example.org/hook")
    assert (batch.selection.only, batch.selection.max_age_days) == ("stale", 7.0)
    assert batch.webhook is not None
    assert batch.webhook.url == "https://example.org/hook"
    assert (await lorry.extractions.pause(batch.id)).state == "paused"

    def blocking(client: Client) -> list[str]:
        return [client.extractions.resume(batch.id).state, client.extractions.cancel(batch.id).state]

    assert await in_thread(mill.gateway, blocking) == ["queued", "canceled"]
    with pytest.raises(Conflict) as ended:
        await lorry.extractions.pause(batch.id)
    assert ended.value.code == "illegal-batch-transition"


async def test_what_cannot_be_submitted_or_found_is_refused_with_its_field(mill: Mill, lorry: AsyncClient) -> None:
    with pytest.raises(Invalid) as nobody:
        await lorry.extractions.submit()
    assert (nobody.value.code, nobody.value.field) == ("batch-request-invalid", "users")
    with pytest.raises(Invalid) as both:
        await lorry.extractions.submit(["ann"], everybody=True)
    assert both.value.field == "users"
    for call in (lorry.extractions.get, lorry.extractions.resume):
        with pytest.raises(NotFound):
            await call(NOBODYS)
    with pytest.raises(NotFound) as missing:
        [result async for result in lorry.extractions.results(NOBODYS)]
    assert missing.value.code == "batch-not-found"
    await TenantLimits(mill.database, mill.batch_settings).put("default", max_batches=1, max_users=2)
    await lorry.extractions.submit(["ann"])
    async with AsyncClient(url=mill.gateway.url, key=mill.gateway.key, attempts=1) as hasty:
        with pytest.raises(RateLimited) as busy:
            await hasty.extractions.submit(["ann"])
    assert busy.value.retry_after_seconds


async def test_a_batch_under_a_key_of_ones_own_is_queued_once(mill: Mill, lorry: AsyncClient) -> None:
    first = await lorry.with_idempotency_key("nightly").extractions.submit(["ann"])
    again = await lorry.with_idempotency_key("nightly").extractions.submit(["ann"])
    assert again.id == first.id
    assert (await lorry.extractions.submit(["ann"])).id != first.id


async def test_the_python_example_of_the_page_runs(mill: Mill) -> None:
    await mill.add_users("ann", "bob")
    async with mill.working():
        (told,) = [await run_python(mill.gateway, block) for block in examples("python")[NEED_WORKERS]]
    lines = told.splitlines()
    assert sorted(lines[:2]) in (["1 ann done", "2 bob done"], ["1 bob done", "2 ann done"])
    assert lines[2:] == ["2 of 2"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_curl_example_of_the_page_runs(mill: Mill) -> None:
    await mill.add_users("ann")
    async with mill.working():
        (told,) = [await run_bash(mill.gateway, block) for block in examples("bash")[NEED_WORKERS]]
    assert '"sequence":1,"user_id":"ann","status":"done"' in told
