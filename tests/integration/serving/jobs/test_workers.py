"""Workers share a queue, take over from one another, wait for parts that are away, and sweep up."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import httpx
import pytest

from kit.settings import StorageSettings
from kit.storage import ObjectStorage
from serving.erasure.desk import ErasureDesk
from serving.jobs.erasing import BatchErasure
from serving.jobs.errors import WorkerIdTaken
from serving.jobs.fleet.repository import WorkerRepository
from serving.jobs.repository import BatchRepository
from serving.jobs.states import BatchState
from serving.jobs.upkeep import Upkeep
from serving.jobs.users.repository import UserRepository
from serving.jobs.vault import Vault, prefix_of
from serving.jobs.worker import Worker
from tests.support.extraction_jobs import Engine, Mill
from tests.support.faulty_s3 import faulty_s3

USERS = ("ann", "bob", "cy", "dee")


async def test_two_workers_share_a_batch_and_deliver_everybody_once(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users(*USERS)
    stand_in.open.clear()
    batch = await mill.submit(*USERS)
    async with (
        mill.working("one", extraction_users_at_once=2),
        mill.working("two", extraction_users_at_once=2),
    ):
        await mill.until(lambda: stand_in.most_at_once == 4, what="four at once")
        assert await mill.workers() == {"one": "alive", "two": "alive"}
        stand_in.open.set()
        ended = await mill.until_ended(batch.id)
    assert ended.progress.done == 4
    assert Counter(line["user_id"] for line in await mill.lines(batch.id)) == Counter(USERS)
    assert Counter(stand_in.asked) == Counter(mill.versions.values())
    assert await mill.workers() == {"one": "left", "two": "left"}


async def test_a_worker_that_stops_lets_who_is_in_hand_come_to_an_end(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users("ann", "bob")
    stand_in.open.clear()
    batch = await mill.submit("ann", "bob")
    patient = {"extraction_users_at_once": 1, "extraction_prefetch": 0, "extraction_drain_seconds": 60.0}
    worker = Worker(mill.worker_settings(**patient), bank=mill.bank)
    task = asyncio.create_task(worker.run())
    await mill.until(lambda: len(stand_in.asked) == 1, what="a user in hand")
    worker.stop.set()
    await asyncio.sleep(0.2)
    assert not task.done()
    stand_in.open.set()
    await asyncio.wait_for(task, 60)
    found = (await mill.get(batch.id)).progress
    assert (found.done, found.waiting, found.in_hand) == (1, 1, 0)


async def test_who_does_not_end_in_time_waits_for_another_worker_without_a_failure(
    mill: Mill, stand_in: Engine
) -> None:
    await mill.add_users("ann")
    stand_in.open.clear()
    batch = await mill.submit("ann")
    worker = Worker(mill.worker_settings(extraction_drain_seconds=0.1), bank=mill.bank)
    task = asyncio.create_task(worker.run())
    await mill.until(lambda: len(stand_in.asked) == 1, what="a user in hand")
    worker.stop.set()
    await asyncio.wait_for(task, 30)
    assert (await mill.get(batch.id)).progress.waiting == 1
    stand_in.open.set()
    async with mill.working("two"):
        assert (await mill.until_ended(batch.id)).progress.done == 1
    async with mill.database.reading() as session:
        (row,) = await UserRepository(session).results(batch.id, after=0, limit=9)
    assert (row.attempts, row.crashes, row.run) == (0, 0, 2)


async def test_a_second_worker_of_the_same_id_is_refused(mill: Mill) -> None:
    async with mill.working("one"):
        await mill.until(lambda: _alive(mill), what="the worker")
        with pytest.raises(WorkerIdTaken, match="give this one another id"):
            await Worker(mill.worker_settings("one"), bank=mill.bank).run()


async def _alive(mill: Mill) -> bool:
    return await mill.workers() == {"one": "alive"}


async def test_the_users_of_a_worker_that_fell_silent_are_adopted_and_its_late_result_is_dropped(
    mill: Mill, stand_in: Engine
) -> None:
    await mill.add_users("ann")
    stand_in.open.clear()
    batch = await mill.submit("ann")
    async with mill.working("one"):
        await mill.until(lambda: len(stand_in.asked) == 1, what="a user in hand")
        async with mill.database.transaction() as session:  # as if it had been silent for long: its lease is over
            await WorkerRepository(session).leave("one", boot=(await WorkerRepository(session).get("one")).boot)  # type: ignore[union-attr]
        async with mill.working("two"):
            await mill.until(lambda: len(stand_in.asked) == 2, what="the adoption")
            stand_in.open.set()
            ended = await mill.until_ended(batch.id)
    assert ended.progress.done == 1
    (line,) = await mill.lines(batch.id)
    assert line["profile"] is not None


async def test_a_user_under_whom_workers_die_is_given_up_and_others_are_not(mill: Mill) -> None:
    await mill.add_users("ann", "bob")
    batch = await mill.submit("ann", "bob")
    async with mill.working(extraction_users_at_once=1):
        pass
    upkeep = Upkeep(mill.worker_settings(extraction_crashes=2), database=mill.database, vault=_vault(mill))
    await _plan(mill)
    for _ in range(2):
        async with mill.database.transaction() as session:
            (taken,) = await UserRepository(session).claim(batch.id, worker_id="gone", limit=1)
        await upkeep.bury("gone")
    found = await mill.get(batch.id)
    assert (found.failures, found.progress.waiting) == ({"workers-died": 1}, 1)
    async with mill.working():
        assert (await mill.until_ended(batch.id)).progress.done == 1
    assert next(line["user_id"] for line in await mill.lines(batch.id)) == taken.hand.user_id


async def _plan(mill: Mill) -> None:
    """Have what is queued planned, without anybody being taken in hand."""
    from registry.client import RegistryClient
    from serving.jobs.limits import TenantLimits
    from serving.jobs.planning.planner import Planner
    from tests.support.registry_server import TOKEN

    settings = mill.worker_settings()
    async with RegistryClient(url=settings.registry_url, token=TOKEN) as registry:
        limits = TenantLimits(mill.database, settings)
        planner = Planner(worker_id="planner", database=mill.database, registry=registry, bank=mill.bank, limits=limits)
        while await planner.plan_next():
            pass


def _vault(mill: Mill) -> Vault:
    return Vault(mill.batch_settings, mill.gateway.registry)


async def test_an_engine_that_is_away_costs_nobody_an_attempt_and_is_not_asked_meanwhile(
    mill: Mill, stand_in: Engine
) -> None:
    await mill.add_users(*USERS)
    stand_in.is_down = True
    batch = await mill.submit(*USERS)
    async with mill.working(extraction_attempts=1, extraction_users_at_once=2) as worker:

        async def is_known() -> bool:
            metrics = (await worker.metrics.render(mill.database)).decode()
            return 'lorry_extraction_engine_up{engine="default"} 0.0' in metrics

        await mill.until(is_known, what="an engine that is known to be away")
        asked = len(stand_in.asked)
        await asyncio.sleep(1.0)
        assert 1 <= asked <= 2, "of the two who may be asked at once, one may have been stopped before"
        assert len(stand_in.asked) == asked, "nobody is taken in hand before the engine answers its health check"
        stand_in.is_down = False
        ended = await mill.until_ended(batch.id)
    assert (ended.progress.done, ended.progress.failed) == (4, 0)


async def test_an_object_store_that_is_away_is_waited_for_and_nobody_is_asked_twice(
    mill: Mill, stand_in: Engine, storage_settings: StorageSettings
) -> None:
    await mill.add_users("ann")
    batch = await mill.submit("ann")
    async with faulty_s3(storage_settings) as faulty:
        faulty.answer("PUT .*extractions", status=503)
        changes = faulty.settings.model_dump(exclude={"log_level"}) | {"s3_attempts": 1}
        async with mill.working(extraction_attempts=1, **changes):
            await mill.until(lambda: faulty.count("PUT .*extractions") > 1, what="two tries")
            assert (await mill.get(batch.id)).progress.done == 0
            faulty.heal()
            ended = await mill.until_ended(batch.id)
    assert (ended.progress.done, ended.progress.failed) == (1, 0)
    assert len(stand_in.asked) == 1, "the profile was made, and is kept although its copy was not"


async def test_a_batch_of_more_users_than_the_tenant_may_have_ends_with_that_reason(mill: Mill) -> None:
    await mill.add_users("ann", "bob")
    batch = await mill.submit()
    async with mill.working(extraction_max_users=1):
        ended = await mill.until_ended(batch.id)
    assert ended.state is BatchState.FAILED
    assert ended.error is not None
    assert ended.error["code"] == "too-many-users"


async def test_old_batches_are_swept_up_with_their_results_and_young_ones_stay(
    mill: Mill, storage: ObjectStorage
) -> None:
    await mill.add_users("ann")
    old, young = await mill.submit("ann"), await mill.submit("ann")
    async with mill.working():
        await mill.until_ended(old.id)
        await mill.until_ended(young.id)
    assert len(await storage.list(prefix_of("default", "ann"))) == 2
    async with mill.database.transaction() as session:
        repository = BatchRepository(session)
        await repository.update(old.id, {"ended_at": await repository.now() - timedelta(days=31)})
    await Upkeep(mill.worker_settings(), database=mill.database, vault=_vault(mill)).sweep()
    assert [batch.id for batch in await mill.batches.list(tenant="default")] == [young.id]
    assert [found.key for found in await storage.list(prefix_of("default", "ann"))] == [
        f"{prefix_of('default', 'ann', young.id)}1"
    ]


async def test_results_are_sealed_and_lie_below_their_users_prefix(mill: Mill, storage: ObjectStorage) -> None:
    await mill.add_users("ann")
    async with mill.working():
        await mill.until_ended((await mill.submit("ann")).id)
    (found,) = await storage.list("tenants/default/users/ann/extractions/")
    content = await storage.get(found.key)
    assert content.startswith(b"LORRYSL")
    assert b"green tea" not in content


async def test_a_user_who_is_erased_is_let_go_of_and_leaves_no_name_and_the_counts_stay_true(
    mill: Mill, stand_in: Engine
) -> None:
    await mill.add_users("ann", "bob")
    done = await mill.submit("ann", "bob")
    async with mill.working():
        await mill.until_ended(done.id)
        stand_in.open.clear()
        running = await mill.submit("ann", "bob")

        async def in_hand() -> bool:
            return (await mill.get(running.id)).progress.in_hand == 2

        await mill.until(in_hand, what="both in hand")
        erasure = BatchErasure(mill.database)
        assert await erasure.count("default", "ann") == 2
        await ErasureDesk(mill.database).ask("default", "ann", asked_by="test")
        assert await erasure.erase("default", "ann") in (["one"], [])
        later = await mill.submit("ann", "bob")

        async def let_go() -> bool:
            return await erasure.erase("default", "ann") == []

        await mill.until(let_go, what="the worker's letting go")
        await mill.until(lambda: stand_in.now[mill.versions["ann"]] == 0, what="the request's end")
        stand_in.open.set()
        ended, passed_over = await mill.until_ended(running.id), await mill.until_ended(later.id)
    assert (ended.progress.done, ended.progress.canceled) == (1, 1)
    assert (passed_over.progress.done, passed_over.progress.canceled) == (1, 1)
    lines = await mill.lines(done.id)
    assert [line["sequence"] for line in lines] == [1, 2]
    assert {line["user_id"].partition(":")[0] for line in lines} == {"bob", "erased"}
    assert [line["error"] for line in lines if line["user_id"] != "bob"] == [
        {"code": "erased", "message": "the user was erased"}
    ]
    assert await erasure.count("default", "ann") == 0


async def test_a_user_who_waits_while_being_erased_is_passed_over_by_workers(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users("ann", "bob")
    batch = await mill.submit("ann", "bob")
    await ErasureDesk(mill.database).ask("default", "ann", asked_by="test")
    async with mill.working():

        async def bob_is_done() -> bool:
            return (await mill.get(batch.id)).progress.done == 1

        await mill.until(bob_is_done, what="the end of the other")
        assert set(stand_in.asked) == {mill.versions["bob"]}
        assert (await mill.get(batch.id)).state is BatchState.RUNNING
        assert await BatchErasure(mill.database).erase("default", "ann") == []
        ended = await mill.until_ended(batch.id)
    assert (ended.progress.done, ended.progress.canceled) == (1, 1)


async def test_what_is_being_put_away_comes_to_its_end_before_a_user_is_let_go_of(
    mill: Mill, storage_settings: StorageSettings, storage: ObjectStorage
) -> None:
    await mill.add_users("ann")
    await mill.submit("ann")
    erasure = BatchErasure(mill.database)
    async with faulty_s3(storage_settings) as faulty:
        faulty.stall("PUT .*extractions", seconds=1.5)
        async with mill.working(**faulty.settings.model_dump(exclude={"log_level"})):
            await mill.until(lambda: faulty.count("PUT .*extractions") > 0, what="the result on its way")
            await ErasureDesk(mill.database).ask("default", "ann", asked_by="test")

            async def let_go() -> bool:
                return await erasure.erase("default", "ann") == []

            await mill.until(let_go, what="the worker's letting go")
            assert len(await storage.list(prefix_of("default", "ann"))) == 1


async def test_a_worker_answers_for_its_health_and_its_measures(mill: Mill) -> None:
    async with mill.working() as worker:
        await mill.until(lambda: worker.port > 0, what="the port")
        async with httpx.AsyncClient(timeout=60, base_url=f"http://127.0.0.1:{worker.port}", trust_env=False) as http:
            assert (await http.get("/healthz")).json() == {"status": "ok"}
            assert (await http.get("/readyz")).status_code == 200
            text = (await http.get("/metrics")).text
            worker.stop.set()
            assert (await http.get("/readyz")).status_code == 503
    assert 'lorry_extraction_workers{state="alive"} 1.0' in text
    assert 'lorry_extraction_batches{state="running"} 0.0' in text
