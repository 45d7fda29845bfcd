"""Everything that is kept, searched for words: every column of every table, every version of an object, every file."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
from serving.extraction.profile import AdapterVersion, Asked, BankVersion, Profile, TopicSection
from tests.support.adapters import BASE
from training.erasure.erasure import TrainingErasure
from training.writers.settings import WriterSettings

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
    for path in folder.rglob("*"):
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
    return Profile(
        user=user,
        adapter=AdapterVersion(version=1, version_id=version_id),
        bank=BankVersion(name="test", version="1"),
        generated_at=datetime.now(UTC),
        asked=Asked(questions=0, samples=0, unusable_answers=0, unsupported_claims=0),
        topics=(TopicSection(topic="x", title=f"loves {word}", not_stated=True),),
    )


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
