"""Everything that is kept, searched for words: every column of every table, every version of an object, every file."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from kit.database import Database
from kit.storage import ObjectStorage
from lorry.erasure.conductor import Conductor
from lorry.erasure.stores import Rooms, stores
from lorry.home import Home
from registry.client import RegistryClient
from registry.client.engines import Heartbeat, Holdings, Orders, Registration, Tier
from serving.erasure.desk import ErasureDesk
from serving.erasure.report import ErasureReport
from serving.erasure.repository import Task
from serving.extraction.corrections.repository import CorrectionRepository
from serving.extraction.profile import Profile
from serving.gateway.idempotency.repository import Claim, Kept, RequestRepository
from serving.gateway.transcripts.repository import TranscriptNameRepository
from serving.gateway.usage.repository import UsageRepository, Used
from serving.jobs.batch import Submission
from serving.jobs.batches import Batches
from serving.jobs.selection import Selection
from serving.jobs.settings import BatchSettings
from serving.jobs.vault import Place, Vault
from tests.support.adapters import BASE
from tests.support.folders import found_under
from tests.support.profiles import a_statement, profile_of
from training.erasure.erasure import TrainingErasure
from training.writers.settings import WriterSettings
from transcripts.store import TranscriptStore

TODAY = date(2026, 1, 2)
_TABLES = text(
    "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
    " where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'"
)
_STATISTICS = text(
    "select tablename, coalesce(most_common_vals::text, '') || coalesce(histogram_bounds::text, '')"
    " || coalesce(most_common_elems::text, '') from pg_stats where schemaname !~ '^pg_'"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{16,}")


async def in_database(database: Database, words: Iterable[str]) -> dict[str, set[str]]:
    """Return which of the words stand in which tables: in text, JSON, bytes, in what DBOS has packed, in statistics."""
    found: dict[str, set[str]] = {}
    async with database.transaction() as session:
        for schema, table in (await session.execute(_TABLES)).all():
            rows = await session.execute(text(f'select t::text from "{schema}"."{table}" t'))
            whole = "\n".join(_unpacked(row[0]) for row in rows)
            _note(found, f"{schema}.{table}", whole, words)
        for table, values in (await session.execute(_STATISTICS)).all():
            _note(found, f"statistics of {table}", _unpacked(values), words)
    return found


def _unpacked(row: str) -> str:
    """Return a row's text with what it holds as bytes, in hexadecimal digits or base64."""
    parts = [row]
    for digits in re.findall(r"\\x([0-9a-f]{2,})", row):
        parts.append(binascii.unhexlify(digits[: len(digits) // 2 * 2]).decode("latin-1"))
    for packed in _BASE64.findall(row):
        try:
            parts.append(base64.b64decode(packed, validate=True).decode("latin-1"))
        except (binascii.Error, ValueError):
            continue
    return "\n".join(parts)


async def in_objects(storage: ObjectStorage, words: Iterable[str]) -> dict[str, set[str]]:
    """Return which of the words stand in which objects, or in their keys; older versions of objects included."""
    client, bucket = storage._client, storage._bucket

    def look() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket.name, Prefix=bucket.path("")):
            for each in page.get("Versions", []):
                version = {} if each["VersionId"] in ("", "null") else {"VersionId": each["VersionId"]}
                body = client.get_object(Bucket=bucket.name, Key=each["Key"], **version)["Body"].read()
                _note(found, each["Key"], each["Key"] + body.decode("latin-1"), words)
        for upload in client.list_multipart_uploads(Bucket=bucket.name, Prefix=bucket.path("")).get("Uploads", []):
            _note(found, upload["Key"], upload["Key"], words)
        return found

    return await asyncio.to_thread(look)


def in_files(folder: Path, words: Iterable[str]) -> dict[str, set[str]]:
    """Return which of the words stand in which files, or in their paths below `folder`."""
    found: dict[str, set[str]] = {}
    for path in found_under(folder):
        name = str(path.relative_to(folder))
        content = path.read_bytes().decode("latin-1") if path.is_file() else ""
        _note(found, name, f"{name}\n{content}", words)
    return found


def _note(found: dict[str, set[str]], place: str, content: str, words: Iterable[str]) -> None:
    held = {word for word in words if word.lower() in content.lower()}
    if held:
        found[place] = held


def a_profile(user: str, *, version_id: str, word: str) -> Profile:
    """A profile that says one thing."""
    made = profile_of(a_statement(f"I love {word}"), user=user)
    adapter = made.adapter.model_copy(update={"version_id": version_id})
    return made.model_copy(update={"adapter": adapter, "generated_at": datetime.now(UTC)})


async def fill_gateway(database: Database, user: str, word: str) -> None:
    """Put something of a user who has transcripts into every store of the gateway's."""
    tenant, owner = "default", {"tenant": "default", "user": user}
    claim = Claim(tenant=tenant, key=f"key-of-{word}", digest="d" * 64)
    answer = Kept(status=200, headers={}, body=f'{{"answer": "{word}"}}'.encode())
    used = Used(tenant=tenant, day=TODAY, user_id=user, requests=3, prompt_tokens=5, completion_tokens=7)
    async with database.transaction() as session:
        (head,) = await TranscriptStore(session).heads(tenant, user, limit=1)
        await TranscriptNameRepository(session, **owner).put({f"about-{word}": head.id})
        requests = RequestRepository(session)
        assert await requests.take(claim, lasts=timedelta(hours=1)) is None
        await requests.keep(claim, answer, user=user, lasts=timedelta(hours=1))
        await UsageRepository(session).add([used])
        corrections = CorrectionRepository(session, **owner)
        await corrections.add(kind="forbid", fact_id="f1", text=f"I love {word}", topic=None, statement=None, by="me")


async def fill_batches(
    database: Database, client: RegistryClient, settings: BatchSettings, versions: Mapping[str, str], word: str
) -> str:
    """Put users into a batch, each with a result that is put away and an error that says a word; return its id."""
    submission = Submission(tenant="default", selection=Selection.of(users=sorted(versions)))
    batch = await Batches(database, settings).submit(submission)
    vault = Vault(settings, client)
    try:
        for user, version_id in versions.items():
            place = Place(tenant="default", user=user, batch_id=batch.id, run=1)
            await vault.put(place, word.encode(), version_id=version_id)
    finally:
        vault.close()
    async with database.transaction() as session:
        error = "jsonb_build_object('message', user_id || cast(:word as text))"
        statement = f"update extraction_batch_user set error = {error} where batch_id = :batch"
        await session.execute(text(statement), {"word": word, "batch": batch.id})
    return batch.id


@dataclass
class StandInEngine:
    """An engine as the registry's directory knows one: it says what it holds, and obeys what it is told.

    A stand-in because only what engines report matters here; what they do then is tested with a real one.
    """

    client: RegistryClient
    id: str = "engine-1"
    tiers: dict[str, Tier] = field(default_factory=dict)
    incarnation: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def register(self) -> Orders:
        """Enter the directory with what is held."""
        given = Registration(incarnation=self.incarnation, base=BASE, holdings=Holdings.of(self.tiers))
        return await self.client.engines.register(self.id, given)

    async def beat(self) -> Orders:
        """Show a sign of life, say what is held, and let go of what must be deleted."""
        holdings = Holdings.of(self.tiers)
        beat = Heartbeat(incarnation=self.incarnation, holdings_digest=holdings.digest, holdings=holdings)
        orders = await self.client.engines.heartbeat(self.id, beat)
        for each in orders.withheld:
            if each.delete:
                self.tiers.pop(each.version_id, None)
        return orders


@dataclass
class Erasing:
    """A conductor of this test's own, and the desk at which it is asked."""

    database: Database
    registry: RegistryClient
    home: Home | None = None
    writers: WriterSettings = field(default_factory=WriterSettings)

    @property
    def desk(self) -> ErasureDesk:
        """Where an erasure is asked for."""
        return ErasureDesk(self.database)

    @property
    def conductor(self) -> Conductor:
        """Who walks the stores."""
        trainings = TrainingErasure(self.database, writers=self.writers)
        rooms = Rooms(
            database=self.database,
            registry=self.registry,
            trainings=trainings,
            writers=self.writers,
            home=self.home,
        )
        return Conductor(self.database, stores(rooms), poll_seconds=0.1)

    async def ask(self, user: str, *, tenant: str = "default") -> Task:
        """Put the sign up."""
        report = await self.desk.ask(tenant, user, asked_by="test")
        return Task(id=report.id, tenant=tenant, user=user)

    async def advance(self, task: Task) -> ErasureReport:
        """Do what can be done now."""
        return await self.conductor.advance(task)

    async def until_done(self, task: Task, *, seconds: float = 120.0) -> ErasureReport:
        """Advance until nothing is left."""
        end = asyncio.get_running_loop().time() + seconds
        while (report := await self.advance(task)).state != "done":
            assert asyncio.get_running_loop().time() < end, report.waits_for
            await asyncio.sleep(0.1)
        return report


def store(report: ErasureReport, name: str) -> Any:
    """Return what a report says of one store."""
    (found,) = (each for each in report.stores if each.store == name)
    return found
