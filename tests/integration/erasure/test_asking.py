"""Asking for an erasure, and what is refused from then on."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from kit.database import Database
from kit.errors import BeingErased
from kit.settings import DatabaseSettings, StorageSettings
from lorry.erasure.conductor import Conductor
from lorry.erasure.files import UserFiles, mask
from lorry.erasure.homes import visit
from lorry.home import Home
from registry.client import RegistryClient
from registry.client.engines import Tier
from registry.manifest import AdapterRef, Owner
from serving.erasure.report import STORES
from serving.errors import NeverErased, UnknownUser
from serving.extraction.corrections.service import Corrections
from serving.extraction.repository import ProfileRepository
from serving.gateway.idempotency.repository import Claim, Kept, RequestRepository
from serving.gateway.transcripts.repository import TranscriptNameRepository
from serving.gateway.usage.meter import Meter
from serving.gateway.usage.repository import UsageRepository, Used
from serving.jobs.batch import Submission as BatchSubmission
from serving.jobs.batches import Batches
from serving.jobs.selection import Selection
from serving.jobs.settings import BatchSettings
from serving.jobs.users.repository import UserRepository
from tests.support.erasing import TODAY, Erasing, StandInEngine, a_profile, fill_gateway, in_database, store
from tests.support.registry_server import OWNER
from tests.support.steering import let_urls_lapse, publish, rows
from tests.support.training_jobs import talks
from training.curation import Decision
from training.curations.repository import CurationRepository
from training.erasure.erasure import TrainingErasure
from training.jobs.campaigns.campaigns import Campaigns
from training.jobs.job import Submission
from training.jobs.jobs import Jobs
from transcripts.store import TranscriptStore

BASE_NAME = "smollm2-135m-instruct"


async def add(database: Database, user: str = "ann", *, tenant: str = "default") -> None:
    async with database.transaction() as session:
        await TranscriptStore(session).add(tenant, user, talks(user))


async def test_a_user_of_whom_nothing_is_known_is_not_found(erasing: Erasing) -> None:
    with pytest.raises(UnknownUser):
        await erasing.ask("nobody")
    with pytest.raises(NeverErased):
        await erasing.desk.report("default", "nobody")


async def test_an_erasure_that_is_asked_for_again_is_the_same_one_and_one_that_ended_is_shown(
    erasing: Erasing, database: Database
) -> None:
    await add(database)
    first, second = await asyncio.gather(erasing.ask("ann"), erasing.ask("ann"), return_exceptions=True)
    task = await erasing.ask("ann")
    assert task in (first, second)
    done = await erasing.until_done(task)
    assert done.id == task.id
    again = await erasing.desk.ask("default", "ann", asked_by="test")
    assert (again.id, again.state) == (task.id, "done")
    assert [each.store for each in again.stores] == list(STORES)
    assert await rows(database, "select user_id, tenant from erasure") == [(None, "default")]


async def test_while_a_user_is_erased_nothing_of_theirs_is_taken_in_and_everything_of_others_is(
    erasing: Erasing, database: Database, client: RegistryClient, tmp_path: Path
) -> None:
    await add(database)
    await add(database, "bob")
    await add(database, tenant="other")
    version_id = await publish(client, tmp_path / "before")
    jobs = Jobs(database)
    old = await jobs.submit(Submission(tenant="default", user="ann", base=BASE_NAME))
    await jobs.cancel(old.id)
    await erasing.ask("ann")
    decision = Decision(action="drop", question=None, completion=None, transcript_id=None, by="me", at="now")
    with pytest.raises(BeingErased):
        await add(database, "ann")
    with pytest.raises(BeingErased):
        await jobs.submit(Submission(tenant="default", user="ann", base=BASE_NAME))
    with pytest.raises(BeingErased):
        await jobs.retry(old.id)
    with pytest.raises(BeingErased):
        await publish(client, tmp_path / "other", seed=7)
    with pytest.raises(BeingErased):
        await publish(client, tmp_path / "new", adapter="style")
    with pytest.raises(BeingErased):
        async with database.transaction() as session:
            await ProfileRepository(session).add("default", a_profile("ann", version_id=version_id, word="x"))
    with pytest.raises(BeingErased):
        async with database.transaction() as session:
            await CurationRepository(session).put("f" * 64, decision, tenant="default", user="ann")
    with pytest.raises(BeingErased):
        await Campaigns(database).begin("default", base=BASE_NAME, users=["ann"], known=[BASE_NAME])
    with pytest.raises(BeingErased):
        await fill_gateway(database, "ann", "words")
    with pytest.raises(BeingErased):
        async with database.transaction() as session:
            await TranscriptNameRepository(session, tenant="default", user="ann").put({"new": talks("ann")[0].id})
    with pytest.raises(BeingErased):
        await Corrections(database, tenant="default").forbid("ann", "I love tea", by="me")
    await fill_gateway(database, "bob", "words")
    await jobs.submit(Submission(tenant="default", user="bob", base=BASE_NAME))
    await jobs.submit(Submission(tenant="other", user="ann", base=BASE_NAME))
    await publish(client, tmp_path / "bob", owner=Owner(tenant="default", user="bob"))


async def test_a_user_may_come_back_as_somebody_new(
    erasing: Erasing, database: Database, client: RegistryClient, tmp_path: Path
) -> None:
    await add(database)
    await publish(client, tmp_path / "before")
    await let_urls_lapse(database)
    first = await erasing.ask("ann")
    await erasing.until_done(first)
    await add(database)
    version_id = await publish(client, tmp_path / "after")
    assert (await client.show_version(AdapterRef.parse("users/ann@1"))).version_id == version_id
    second = await erasing.ask("ann")
    assert second.id != first.id
    await let_urls_lapse(database)
    await erasing.until_done(second)
    assert await erasing.desk.traces("default", "ann") == {}


async def test_an_import_that_runs_when_an_erasure_is_asked_for_is_waited_for_and_erased(
    database_settings: DatabaseSettings, database: Database, client: RegistryClient
) -> None:
    impatient = Database(database_settings.model_copy(update={"database_lock_timeout_seconds": 0.3}))
    erasing = Erasing(database=impatient, registry=client)
    await add(database, "ann")
    try:
        async with database.transaction() as session:
            await TranscriptStore(session).add("default", "ann", talks("late"))
            task = await erasing.ask("ann")
            report = await erasing.advance(task)
            assert store(report, "intake").waits_for == ["an import or a publish that began before the erasure"]
            assert store(report, "transcripts").state == "not begun"
        await erasing.until_done(task)
        assert await rows(database, "select count(*) from transcript") == [(0,)]
    finally:
        await impatient.close()


async def test_an_import_that_has_more_to_store_is_refused_whole(erasing: Erasing, database: Database) -> None:
    await add(database)

    async def import_slowly() -> None:
        async with database.transaction() as session:
            await TranscriptStore(session).add("default", "ann", talks("early"))
            await erasing.ask("ann")
            await TranscriptStore(session).add("default", "ann", talks("late"))

    with pytest.raises(BeingErased):
        await import_slowly()
    assert await rows(database, "select count(*) from transcript") == [(12,)]


async def test_a_profile_that_is_extracted_while_its_user_is_erased_is_not_kept(
    erasing: Erasing, database: Database, client: RegistryClient, tmp_path: Path
) -> None:
    await add(database)
    version_id = await publish(client, tmp_path)
    await let_urls_lapse(database)
    await erasing.until_done(await erasing.ask("ann"))
    with pytest.raises(BeingErased):  # it began before the sign went up, and ends after it came down
        async with database.transaction() as session:
            await ProfileRepository(session).add("default", a_profile("ann", version_id=version_id, word="x"))


async def test_whose_erasure_it_was_is_digested_alike_in_the_database(erasing: Erasing, database: Database) -> None:
    await add(database, "a.nn_1:2-3")
    await erasing.ask("a.nn_1:2-3")
    query = "select subject = erasure_subject(tenant, user_id) from erasure"
    assert await rows(database, query) == [(True,)]


async def test_an_answer_about_who_was_erased_meanwhile_is_not_kept_and_one_about_a_newcomer_is(
    erasing: Erasing, database: Database
) -> None:
    await add(database)
    old, new = [Claim(tenant="default", key=key, digest="d") for key in ("old", "new")]
    answer, hour = Kept(status=200, headers={}, body=b"words"), timedelta(hours=1)

    async def take(claim: Claim) -> None:
        async with database.transaction() as session:
            assert await RequestRepository(session).take(claim, lasts=hour) is None

    async def keep(claim: Claim) -> None:
        async with database.transaction() as session:
            await RequestRepository(session).keep(claim, answer, user="ann", lasts=hour)

    await take(old)
    await erasing.until_done(await erasing.ask("ann"))
    with pytest.raises(BeingErased):
        await keep(old)
    await take(new)
    await keep(new)
    assert await rows(database, "select key, user_id from gateway_request order by key") == [
        ("new", "ann"),
        ("old", None),
    ]


async def test_usage_that_is_written_late_does_not_name_who_was_erased_meanwhile(
    erasing: Erasing, database: Database
) -> None:
    await add(database)
    meter = Meter(database, every_seconds=3600)
    meter.count("default", "ann", prompt_tokens=5)
    meter.count("default", "bob", prompt_tokens=6)
    task = await erasing.ask("ann")
    await meter.write()
    meter.count("default", "ann", prompt_tokens=7)
    await erasing.until_done(task)
    await meter.write()
    meter.count("default", "ann", prompt_tokens=8)  # who is somebody new
    await meter.write()
    used = await rows(database, "select user_id, requests, prompt_tokens from usage_day order by prompt_tokens")
    assert used == [("bob", 1, 6), ("ann", 1, 8), (task.pseudonym, 2, 12)]


async def test_who_writes_rows_of_many_users_takes_one_lock(
    database: Database, storage_settings: StorageSettings
) -> None:
    """Locks of a transaction are a bounded good: a few thousand for a whole server."""
    many = [f"user-{number}" for number in range(500)]
    settings = BatchSettings(**storage_settings.model_dump(exclude={"log_level"}))
    selection = Selection.of(users=["bob"])
    batch = await Batches(database, settings).submit(BatchSubmission(tenant="default", selection=selection))
    counts = {"requests": 1, "prompt_tokens": 1, "completion_tokens": 1}
    async with database.transaction() as session:
        await UserRepository(session).add(batch.id, [{"user_id": user} for user in many])
        await UsageRepository(session).add([Used(tenant="default", day=TODAY, user_id=user, **counts) for user in many])
        locks = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
        assert (await session.execute(text(locks))).scalar_one() == 1


async def test_a_batch_passes_over_who_is_being_erased(
    erasing: Erasing, database: Database, storage_settings: StorageSettings
) -> None:
    await add(database)
    task = await erasing.ask("ann")
    settings = BatchSettings(**storage_settings.model_dump(exclude={"log_level"}))
    submission = BatchSubmission(tenant="default", selection=Selection.of(users=["ann", "bob"]))
    batch = await Batches(database, settings).submit(submission)
    assert (batch.progress.waiting, batch.progress.canceled) == (1, 1)
    assert await rows(database, "select user_id from extraction_batch_user where state = 'canceled'") == [
        (task.pseudonym,)
    ]


async def test_an_upload_url_that_lives_is_waited_for(
    erasing: Erasing, database: Database, client: RegistryClient, tmp_path: Path
) -> None:
    await publish(client, tmp_path)
    task = await erasing.ask("ann")
    report = await erasing.advance(task)
    assert "upload URLs of 1 version" in store(report, "adapters").waits_for[0]
    assert await rows(database, "select wrapped is null, destroyed_at is not null from data_key") == [(True, True)]
    await let_urls_lapse(database)
    assert (await erasing.until_done(task)).state == "done"


async def test_a_lapsed_engine_is_named_until_it_obeys_or_is_forgotten(
    erasing: Erasing, database: Database, client: RegistryClient, tmp_path: Path
) -> None:
    version_id = await publish(client, tmp_path)
    await let_urls_lapse(database)
    engine = StandInEngine(client, id="gpu-3", tiers={version_id: Tier.DISK})
    await engine.register()
    await rows(database, "update engine set last_seen_at = now() - interval '1 h'")
    task = await erasing.ask("ann")
    report = await erasing.advance(task)
    assert [each[:21] for each in report.waits_for] == ["engines: engine gpu-3"]
    assert "lapsed" in report.waits_for[0]
    with pytest.raises(BeingErased):
        await add(database)
    await client.engines.forget("gpu-3")
    assert (await erasing.until_done(task)).state == "done"
    await add(database)


async def test_a_worker_that_is_switched_off_is_named_until_it_is_declared_gone(
    erasing: Erasing, database: Database
) -> None:
    await add(database)
    await rows(
        database,
        "insert into training_worker (id, boot, host, prepare_slots, train_slots, lease_seconds, heard_at)"
        " values ('far', 'x', 'h', 1, 1, 60, now() - interval '1 day')",
    )
    task = await erasing.ask("ann")
    report = await erasing.advance(task)
    assert [each[:25] for each in report.waits_for] == ["workers: worker far: sile"]
    trainings = TrainingErasure(database, writers=erasing.writers)
    assert await trainings.give_up_worker(task.id, "far")
    assert not await trainings.give_up_worker(task.id, "far")
    report = await erasing.until_done(task)
    assert store(report, "workers").told == ["worker far: declared gone"]


async def test_a_home_that_is_elsewhere_clears_itself_when_it_is_used_again(
    erasing: Erasing, database: Database, tmp_path: Path
) -> None:
    await add(database)
    known, unknown = Home.open(tmp_path / "known"), Home.open(tmp_path / "unknown")
    for place in (known, unknown):
        (place.folder("datasets", "default", "ann", "x") / "train.jsonl").write_text("words")
        (place.folder("datasets", "default", "bob", "x") / "train.jsonl").write_text("words")
    await visit(known, database)
    task = await erasing.ask("ann")
    report = await erasing.advance(task)
    assert [each.split(" on ")[0] for each in report.waits_for] == [f"homes: home {known.disk_id}"]
    await visit(known, database)
    report = await erasing.until_done(task)
    assert store(report, "homes").told == [each for each in store(report, "homes").told if "1 files removed" in each]
    await visit(unknown, database)  # it was never heard of, and learns of the tombstone
    for place in (known, unknown):
        assert UserFiles(place, tenant="default", user="ann").count() == 0
        assert UserFiles(place, tenant="default", user="bob").count() == 1


async def test_an_empty_table_keeps_no_samples_of_who_was_erased(erasing: Erasing, database: Database) -> None:
    await add(database, "only-4711-user")
    await rows(database, "analyze")
    assert "statistics of turn" in await in_database(database, ["only-4711-user"])
    await erasing.until_done(await erasing.ask("only-4711-user"))
    assert await in_database(database, ["only-4711-user"]) == {}


async def test_one_process_advances_an_erasure_at_a_time(erasing: Erasing, database: Database) -> None:
    await add(database)
    task = await erasing.ask("ann")
    async with database.reading() as session:
        await session.execute(
            text("select pg_advisory_lock(hashtextextended('lorry erasure held' || chr(10) || :id, 0))"),
            {"id": task.id},
        )
        try:
            assert {each.state for each in (await erasing.advance(task)).stores} == {"not begun"}
        finally:
            await session.execute(text("select pg_advisory_unlock_all()"))
    assert (await erasing.advance(task)).state == "done"


async def test_what_nothing_erases_keeps_an_erasure_from_ending(erasing: Erasing, database: Database) -> None:
    await rows(database, "create table note (tenant text, user_id text, words text)")
    await rows(database, "insert into note values ('default', 'ann', 'hers'), ('default', 'bob', 'his')")
    task = await erasing.ask("ann")
    report = await erasing.advance(task)
    assert report.waits_for == ["check: 1 rows of table note, which nothing erases"]
    await rows(database, "delete from note where user_id = 'ann'")
    assert (await erasing.advance(task)).state == "done"


async def test_a_conductor_works_off_what_is_asked_for(erasing: Erasing, database: Database) -> None:
    await add(database)
    await add(database, "bob")
    stop, conductor = asyncio.Event(), erasing.conductor
    running = asyncio.create_task(conductor.run(stop))
    await erasing.ask("ann")
    for _ in range(600):
        if (await erasing.desk.report("default", "ann")).state == "done":
            break
        await asyncio.sleep(0.1)
    stop.set()
    await running
    assert await rows(database, "select distinct user_id from transcript") == [("bob",)]
    with pytest.raises(ValueError, match="differ"):
        Conductor(database, [])


async def test_an_owner_who_is_not_erased_is_not_forgotten(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    await publish(client, tmp_path)
    assert not (await client.lifecycle.forget_owner(OWNER)).forgotten
    await client.lifecycle.erase_owner(OWNER, why="asked for")
    assert not (await client.lifecycle.forget_owner(OWNER)).forgotten  # an upload URL may put bytes back
    await let_urls_lapse(database)
    await client.lifecycle.erase_owner(OWNER, why="asked for")
    forgotten = await client.lifecycle.forget_owner(OWNER)
    assert (forgotten.forgotten, forgotten.adapters) == (True, 1)
    assert (await client.lifecycle.forget_owner(OWNER)).adapters == 0
    assert (await client.lifecycle.remains(OWNER)).adapters == 0
    assert next(each.action for each in (await client.lifecycle.audit_of(OWNER)).entries) == "forget-owner"


def test_a_name_is_overwritten_in_a_log_where_it_stands_alone(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("user anna failed; annabel did not; see anna.\n")
    assert mask(log, "anna") == 2
    assert log.read_text() == "user xxxx failed; annabel did not; see xxxx.\n"
    short = uuid.uuid4().hex[:3]
    log.write_text(short)
    assert mask(log, short) == 0
