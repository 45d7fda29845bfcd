"""Two users in every store; one is erased. Then everything that is kept is searched for both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from sqlalchemy import text

from kit.database import Database
from kit.settings import StorageSettings
from kit.storage import ObjectStorage
from lorry.home import Home
from registry.client import RegistryClient
from registry.client.engines import Tier
from registry.manifest import Owner
from registry.repository import subject_of
from serving.extraction.profile import compare_profiles
from serving.extraction.repository import ProfileRepository
from serving.jobs.batches import Batches
from serving.jobs.settings import BatchSettings
from tests.support.erasing import (
    Erasing,
    StandInEngine,
    a_profile,
    fill_batches,
    fill_gateway,
    in_database,
    in_files,
    in_objects,
    store,
)
from tests.support.steering import let_urls_lapse
from tests.support.training_jobs import Harbour, talks
from training.curation import Decision
from training.curations.repository import CurationRepository
from training.jobs.worker import Worker

TABLES = (
    "turn",
    "transcript",
    "transcript_name",
    "profile",
    "profile_correction",
    "training_job",
    "training_event",
    "training_cost",
    "adapter",
    "data_key",
    "suspension",
    "idempotent_request",
    "gateway_request",
    "usage_day",
    "extraction_batch_user",
)
GONE, GONE_WORD = "gone-4711-ann", "Quokkazebra"
KEPT, KEPT_WORD = "kept-0815-bob", "Wombatlynx"
Working = Callable[..., AbstractAsyncContextManager[Worker]]


async def train(harbour: Harbour, user: str, word: str) -> tuple[str, str]:
    """Have a user trained and published; return the job and the version."""
    await harbour.add_user(user, transcripts=talks(word))
    job = await harbour.submit(user, why=f"because {word} asked")
    done = await harbour.until(job.id)
    assert done.outcome is not None, done.error
    return job.id, done.outcome["version_id"]


async def fill(
    harbour: Harbour, client: RegistryClient, home: Home, user: str, word: str, *, job_id: str, version_id: str
) -> None:
    """Put something of a user into every store that a training does not fill."""
    owner = Owner(tenant="default", user=user)
    async with harbour.database.transaction() as session:
        profile = a_profile(user, version_id=version_id, word=word)
        await ProfileRepository(session).add("default", profile, difference=compare_profiles(None, profile))
        decision = Decision(action="edit", question=f"{word}?", completion=word, transcript_id=None, by="me", at="now")
        await CurationRepository(session).put("f" * 64, decision, tenant="default", user=user)
        await session.execute(
            text(
                "insert into idempotent_request (tenant, key, digest, subject, status, answer)"
                " values ('o', :key, 'd', :subject, 200, :a)"
            ),
            {"key": f"erase:{word}", "subject": subject_of(owner), "a": f'{{"user": "{user}"}}'.encode()},
        )
    await fill_gateway(harbour.database, user, word)
    await client.lifecycle.attach_evaluation(version_id, {"says": word})
    await client.lifecycle.suspend(owner, why="ticket 7")
    for kind in ("datasets", "runs", "profiles"):
        folder = home.folder(kind, "default", user, "abc")
        (folder / "content.json").write_text(word)
    staging = home.folder("profiles", "default", f".{user}-abcdefgh")
    (staging / "profile.json").write_text(word)
    with (home.logs / "gateway.log").open("a") as log:
        log.write(f"a line about {user}, and on\n")
    left = harbour.directory / "training" / "jobs" / job_id / "dataset"
    left.mkdir(parents=True)
    (left / "train.jsonl").write_text(word)
    rival = harbour.directory / "training" / "jobs" / f"j{'0' * 32}" / "rivals" / version_id
    rival.mkdir(parents=True)
    (rival / "adapter_config.json").write_text(word)


async def everything(
    harbour: Harbour, storage: ObjectStorage, home: Home, words: tuple[str, str]
) -> dict[str, set[str]]:
    """Return where any of these words is found."""
    return {
        **await in_database(harbour.database, words),
        **await in_objects(storage, words),
        **in_files(home.path, words),
        **in_files(harbour.directory / "training", words),
    }


async def test_nothing_of_an_erased_user_is_found_anywhere_and_everything_of_another_is(
    harbour: Harbour,
    working: Working,
    client: RegistryClient,
    database: Database,
    storage: ObjectStorage,
    storage_settings: StorageSettings,
    home: Home,
    erasing: Erasing,
) -> None:
    harbour.changes["LORRY_TRAINING_UPKEEP_SECONDS"] = "3600"  # what lies on the disk must not be swept by the way
    engine = StandInEngine(client)
    async with working():
        (gone_job, gone), (kept_job, kept) = [
            await train(harbour, user, word) for user, word in ((GONE, GONE_WORD), (KEPT, KEPT_WORD))
        ]
        settings = BatchSettings(**storage_settings.model_dump(exclude={"log_level"}))
        both = await fill_batches(database, client, settings, {GONE: gone, KEPT: kept}, KEPT_WORD)
        alone = await fill_batches(database, client, settings, {GONE: gone}, GONE_WORD)
        await fill(harbour, client, home, GONE, GONE_WORD, job_id=gone_job, version_id=gone)
        await fill(harbour, client, home, KEPT, KEPT_WORD, job_id=kept_job, version_id=kept)
        engine.tiers = {gone: Tier.DEVICE, kept: Tier.HOST}
        await engine.register()
        await let_urls_lapse(database)
        async with database.reading() as session:
            await session.execute(text("analyze"))
        before = await everything(harbour, storage, home, (GONE, GONE_WORD))
        theirs = await everything(harbour, storage, home, (KEPT, KEPT_WORD))
        assert {f"public.{table}" for table in TABLES} <= set(before)
        assert "statistics of turn" in before
        for prefix in ("versions", "extractions"):
            assert any(f"users/{GONE}/{prefix}/" in place for place in before)

        task = await erasing.ask(GONE)
        report = await erasing.advance(task)
        assert any("engine engine-1 (alive)" in each for each in store(report, "engines").waits_for)
        assert report.state == "running"
        await engine.beat()
        await engine.beat()
        report = await erasing.until_done(task)

    assert engine.tiers == {kept: Tier.HOST}
    assert all(each.state == "done" and each.waits_for == [] for each in report.stores)
    assert store(report, "transcripts").found == {"transcripts": 12, "turns": 72}
    assert store(report, "extractions").found == {"batches": 2}
    assert store(report, "profiles").found == {"profiles": 1, "corrections": 1}
    assert store(report, "answers").found == {"answers": 1}
    assert store(report, "usage").found == {"days": 1}
    assert store(report, "adapters").found == {"versions": 1, "tombstones": 0, "keys": 1}
    assert store(report, "trainings").found["jobs"] == 1
    assert store(report, "engines").found == {"engines": 1}
    assert store(report, "homes").found == {"files here": 4}
    assert [each.split(":")[0] for each in store(report, "workers").told] == ["worker one"]
    assert GONE not in report.model_dump_json()
    left = await everything(harbour, storage, home, (GONE, GONE_WORD))
    assert left == {}
    after = await everything(harbour, storage, home, (KEPT, KEPT_WORD))
    assert set(theirs) - set(after) <= {each for each in theirs if each.startswith("statistics")}
    async with database.reading() as session:
        costs = await session.execute(text("select count(*), sum(device_seconds) > 0 from training_cost"))
        names = await session.execute(text("select distinct user_id from training_cost"))
        assert costs.one()[1]
        assert {row[0] for row in names} == {KEPT, task.pseudonym}
        used = await session.execute(text("select user_id, requests, completion_tokens from usage_day"))
        assert sorted(map(tuple, used)) == sorted([(KEPT, 3, 7), (task.pseudonym, 3, 7)])
    batches = Batches(database, settings)
    assert (await batches.get(both, tenant="default")).progress.canceled == 1
    assert (await batches.get(alone, tenant="default")).progress.canceled == 1
