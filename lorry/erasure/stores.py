"""Every store that holds something of a user, in the order in which it is erased: `serving.erasure.report.STORES`.

Each says what it finds, erases what it can, and names what it waits for. Each may be done again after a kill at any
point: it finds what is left. docs/erasure.md says of every store what lies there and what remains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from kit.database import Database
from kit.errors import DatabaseUnavailable
from kit.words import counted
from lorry.erasure.files import UserFiles
from lorry.erasure.homes import obey
from lorry.erasure.repository import HomeRepository, Vacuum
from lorry.home import Home
from lorry.receipts import read_receipts
from registry.client import RegistryClient
from registry.manifest import Owner
from serving.erasure.repository import ErasureRepository, Task
from serving.extraction.corrections.repository import CorrectionRepository
from serving.extraction.repository import ProfileRepository
from serving.gateway.idempotency.repository import RequestRepository
from serving.gateway.usage.repository import UsageRepository
from serving.jobs.erasing import BatchErasure
from training.erasure.erasure import TrainingErasure
from training.writers.settings import WriterSettings
from transcripts.store import TranscriptStore


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """What the stores are reached by; `home` is None where this process has none."""

    database: Database
    registry: RegistryClient
    trainings: TrainingErasure
    writers: WriterSettings
    home: Home | None
    engine_token: str | None = None


class Store(Protocol):
    """One place that holds something of a user."""

    @property
    def name(self) -> str:
        """As the report calls it."""

    @property
    def after(self) -> tuple[str, ...]:
        """The stores that must be done before this one's turn comes."""

    async def found(self, task: Task) -> Mapping[str, int]:
        """Count what lies there, by kind; nothing is changed."""

    async def erase(self, task: Task) -> list[str]:
        """Erase what can be erased now; return what is waited for, as sentences, nothing when nothing is left."""

    async def told(self, task: Task) -> list[str]:
        """Return how it went, as sentences, once nothing is left."""


@dataclass(frozen=True)
class _Store:
    """What the stores share: how they reach things, and that most count nothing."""

    rooms: Rooms
    name: ClassVar[str] = ""
    after: ClassVar[tuple[str, ...]] = ()

    async def found(self, task: Task) -> Mapping[str, int]:
        return {}

    async def told(self, task: Task) -> list[str]:
        return []


class _Intake(_Store):
    """What is on its way in: whoever began to write before the sign was up ends first."""

    name = "intake"

    async def erase(self, task: Task) -> list[str]:
        try:
            for user in (task.user, ""):  # one after the other: whoever holds one lock may wait for the other
                async with self.rooms.database.transaction() as session:
                    await ErasureRepository(session).close_intake(tenant=task.tenant, user=user)
        except DatabaseUnavailable:
            return ["an import or a publish that began before the erasure"]
        return []


class _Jobs(_Store):
    """Trainings that wait or run."""

    name, after = "jobs", ("intake",)

    async def erase(self, task: Task) -> list[str]:
        held = await self.rooms.trainings.stop_jobs(task.tenant, task.user, pseudonym=task.pseudonym)
        return [f"worker {each}, which ends a training at its next step" for each in held]


class _Extractions(_Store):
    """Batch extractions: who is in hand is let go of, and nobody's name is left."""

    name, after = "extractions", ("intake",)

    async def found(self, task: Task) -> Mapping[str, int]:
        return {"batches": await BatchErasure(self.rooms.database).count(task.tenant, task.user)}

    async def erase(self, task: Task) -> list[str]:
        holders = await BatchErasure(self.rooms.database).erase(task.tenant, task.user)
        return [f"extraction worker {each}, which lets go of the user" for each in holders]


class _Transcripts(_Store):
    """What the user said, the index by which it was found, and what callers called it."""

    name, after = "transcripts", ("intake",)

    async def found(self, task: Task) -> Mapping[str, int]:
        async with self.rooms.database.reading() as session:
            summary = await TranscriptStore(session).summary(task.tenant, task.user)
        return {"transcripts": summary.transcripts, "turns": summary.turns}

    async def erase(self, task: Task) -> list[str]:
        async with self.rooms.database.transaction() as session:
            await TranscriptStore(session).delete(task.tenant, task.user)
        return []


class _Profiles(_Store):
    """What was extracted of the user, how it changed, and what people corrected of it."""

    name, after = "profiles", ("intake",)

    async def found(self, task: Task) -> Mapping[str, int]:
        async with self.rooms.database.reading() as session:
            corrections = CorrectionRepository(session, tenant=task.tenant, user=task.user)
            return {
                "profiles": await ProfileRepository(session).count(task.tenant, task.user),
                "corrections": len(await corrections.list(withdrawn=True)),
            }

    async def erase(self, task: Task) -> list[str]:
        async with self.rooms.database.transaction() as session:
            await ProfileRepository(session).erase(task.tenant, task.user)
            await CorrectionRepository(session, tenant=task.tenant, user=task.user).erase()
        return []


class _Answers(_Store):
    """Answers that the gateway keeps for requests that are asked again, with what was asked under which key."""

    name, after = "answers", ("intake",)

    async def found(self, task: Task) -> Mapping[str, int]:
        async with self.rooms.database.reading() as session:
            return {"answers": await RequestRepository(session).count_of(tenant=task.tenant, user=task.user)}

    async def erase(self, task: Task) -> list[str]:
        async with self.rooms.database.transaction() as session:
            await RequestRepository(session).erase(tenant=task.tenant, user=task.user)
        return []


class _Usage(_Store):
    """What was used, which a tenant is billed for: it stays, under a name that is nobody's."""

    name, after = "usage", ("intake",)

    async def found(self, task: Task) -> Mapping[str, int]:
        async with self.rooms.database.reading() as session:
            return {"days": await UsageRepository(session).count_of(tenant=task.tenant, user=task.user)}

    async def erase(self, task: Task) -> list[str]:
        async with self.rooms.database.transaction() as session:
            await UsageRepository(session).hide(tenant=task.tenant, user=task.user, pseudonym=task.pseudonym)
        return []


class _Adapters(_Store):
    """Versions and their bytes in the object store, and the data key that opens every copy of them."""

    name, after = "adapters", ("intake",)

    async def found(self, task: Task) -> Mapping[str, int]:
        remains = await self.rooms.registry.lifecycle.remains(_owner(task))
        return {"versions": remains.versions - remains.erased, "tombstones": remains.erased, "keys": remains.data_keys}

    async def erase(self, task: Task) -> list[str]:
        await self.rooms.registry.lifecycle.erase_owner(_owner(task), why=f"erasure {task.id}", force=True)
        remains = await self.rooms.registry.lifecycle.remains(_owner(task))
        if remains.unremoved == 0:
            return []
        until = f" until {remains.settled_at:%Y-%m-%d %H:%M} UTC" if remains.settled_at else ""
        return [f"upload URLs of {counted(remains.unremoved, 'version')}, with which bytes could be put back{until}"]


class _Batches(_Store):
    """What a question writer's service keeps: requests and answers of batches."""

    name, after = "batches", ("jobs",)

    async def found(self, task: Task) -> Mapping[str, int]:
        return {"batches": await self.rooms.trainings.writings.count(tenant=task.tenant, user=task.user)}

    async def erase(self, task: Task) -> list[str]:
        return await self.rooms.trainings.writings.discard(tenant=task.tenant, user=task.user)


class _Trainings(_Store):
    """Jobs with their payloads, what was written for them, decisions about pairs, and DBOS's own records."""

    name, after = "trainings", ("batches",)

    async def found(self, task: Task) -> Mapping[str, int]:
        return await self.rooms.trainings.counts(task.tenant, task.user)

    async def erase(self, task: Task) -> list[str]:
        remains = await self.rooms.registry.lifecycle.remains(_owner(task))
        await self.rooms.trainings.forget(
            task.tenant,
            task.user,
            erasure_id=task.id,
            pseudonym=task.pseudonym,
            version_ids=remains.version_ids,
        )
        return []


class _Workers(_Store):
    """The disks of training workers: datasets, checkpoints, adapters."""

    name, after = "workers", ("trainings", "adapters")

    async def erase(self, task: Task) -> list[str]:
        return await self.rooms.trainings.waiting_workers(task.id)

    async def told(self, task: Task) -> list[str]:
        return await self.rooms.trainings.ended_workers(task.id)


class _Homes(_Store):
    """LORRY_HOMEs: datasets, runs, profiles, logs."""

    name, after = "homes", ("intake",)

    async def found(self, task: Task) -> Mapping[str, int]:
        home = self.rooms.home
        return {} if home is None else {"files here": UserFiles(home, tenant=task.tenant, user=task.user).count()}

    async def erase(self, task: Task) -> list[str]:
        home = self.rooms.home
        async with self.rooms.database.transaction() as session:
            await HomeRepository(session).ask_homes(task.id)
        here: list[str] = []
        if home is not None:
            here = await obey(home, self.rooms.database, writers=self.rooms.writers)
            if not here:  # also a home that nobody knew of
                _, here = await UserFiles(home, tenant=task.tenant, user=task.user).clear(self.rooms.writers)
        async with self.rooms.database.reading() as session:
            waiting = await HomeRepository(session).waiting(task.id)
        away = [each for each in waiting if home is None or each.home_id != home.disk_id]
        return here + [
            f"home {each.home_id} on {each.host or 'an unknown machine'}"
            + (f", used last {each.seen_at:%Y-%m-%d %H:%M}" if each.seen_at else "")
            for each in away
        ]

    async def told(self, task: Task) -> list[str]:
        async with self.rooms.database.reading() as session:
            return await HomeRepository(session).ended(task.id)


class _Engines(_Store):
    """Slots, host memory and disks of every engine: done when each has said that it holds nothing of the user's."""

    name, after = "engines", ("adapters",)

    async def found(self, task: Task) -> Mapping[str, int]:
        remains = await self.rooms.registry.lifecycle.remains(_owner(task))
        return {"engines": len(remains.holders)}

    async def erase(self, task: Task) -> list[str]:
        remains = await self.rooms.registry.lifecycle.remains(_owner(task))
        return [
            f"engine {each.engine_id} ({each.state}), heard last {each.last_seen_at:%Y-%m-%d %H:%M:%S}"
            for each in remains.holders
        ]

    async def told(self, task: Task) -> list[str]:
        """Return what the engines that are alive say they did; one that has restarted since has forgotten it."""
        if self.rooms.engine_token is None:
            return []
        version_ids = set((await self.rooms.registry.lifecycle.remains(_owner(task))).version_ids)
        engines = (await self.rooms.registry.engines.list(limit=1000)).engines
        with_address = [each for each in engines if each.address is not None]
        answers = await read_receipts(with_address, token=self.rooms.engine_token)
        return [
            f"engine {answer.engine_id}: {_said(receipt)}"
            for answer in answers
            for receipt in answer.receipts
            if receipt["version_id"] in version_ids
        ]


class _Names(_Store):
    """The user's name beside tombstones, destroyed keys and kept answers."""

    name, after = "names", ("extractions", "adapters", "engines", "workers")

    async def found(self, task: Task) -> Mapping[str, int]:
        return {"adapters": (await self.rooms.registry.lifecycle.remains(_owner(task))).adapters}

    async def erase(self, task: Task) -> list[str]:
        forgotten = await self.rooms.registry.lifecycle.forget_owner(_owner(task))
        return [] if forgotten.forgotten else ["something that is not erased at the registry yet"]


class _Dead(_Store):
    """Dead rows in PostgreSQL's pages, and samples of values in its statistics."""

    name, after = "database", ("transcripts", "profiles", "answers", "usage", "trainings", "homes", "names")

    async def erase(self, task: Task) -> list[str]:
        await vacuum(self.rooms.database)
        return []

    async def told(self, task: Task) -> list[str]:
        return ["every table vacuumed and analyzed"]


class _Check(_Store):
    """Every table that names users, whoever made it: none may name this one."""

    name, after = "check", ("database",)

    async def erase(self, task: Task) -> list[str]:
        async with self.rooms.database.reading() as session:
            traces = await ErasureRepository(session).traces(tenant=task.tenant, user=task.user)
        return [f"{rows} rows of table {table}, which nothing erases" for table, rows in traces.items()]


def stores(rooms: Rooms) -> list[Store]:
    """Return every store, in order."""
    kinds = (
        _Intake,
        _Jobs,
        _Extractions,
        _Transcripts,
        _Profiles,
        _Answers,
        _Usage,
        _Adapters,
        _Batches,
        _Trainings,
        _Workers,
        _Homes,
        _Engines,
        _Names,
        _Dead,
        _Check,
    )
    return [kind(rooms) for kind in kinds]


async def vacuum(database: Database, *tables: str) -> int:
    """Vacuum tables, or all of them, with the patience that large ones need; return how many dead rows are left."""
    patience = {"database_timeout_seconds": 86_400.0, "database_lock_timeout_seconds": 600.0, "database_pool_size": 1}
    patient = Database(database.settings.model_copy(update=patience))
    try:
        async with patient.reading() as session:
            return await Vacuum(session).run(*tables)
    finally:
        await patient.close()


def _owner(task: Task) -> Owner:
    return Owner(tenant=task.tenant, user=task.user)


def _said(receipt: Mapping[str, Any]) -> str:
    """Return one engine's receipt in a line."""
    memory = receipt.get("memory") or {}
    removal = memory.get("removal") or {}
    counts = {
        "requests ended": memory.get("leases"),
        "host bytes": removal.get("host_bytes"),
        "slots zeroed": removal.get("slots_zeroed"),
        "disk bytes": receipt.get("disk_bytes"),
    }
    return f"{receipt['version_id']}: " + ", ".join(f"{value} {name}" for name, value in counts.items() if value)
