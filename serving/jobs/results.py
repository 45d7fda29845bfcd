"""A batch's results as lines of JSON, in the order in which users came to an end, also while it runs.

A line's `sequence` grows by one from line to line and never changes: whoever reads on after the last one that they have
misses nobody and hears of nobody twice. A profile is shown as all are: without the words of transcripts that were
deleted since, and as people have corrected it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from kit.database import Database
from kit.errors import BeingErased, DatabaseUnavailable, LorryError, StorageUnavailable, problem_code
from registry.errors import RegistryUnavailable
from serving.erasure.repository import ErasureRepository
from serving.extraction.corrections.shown import as_shown
from serving.extraction.profile.upgrade import read_document
from serving.jobs.batches import require
from serving.jobs.models import UserRow
from serving.jobs.repository import BatchRepository
from serving.jobs.states import ENDED, BatchState, UserState
from serving.jobs.users.repository import UserRepository
from serving.jobs.vault import Place, Vault

_PAGE = 64
_AT_ONCE = 8
_AWAY = (DatabaseUnavailable, StorageUnavailable, RegistryUnavailable)


class Results:
    """Reads the results of every tenant's batches."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def require(self, batch_id: str, *, tenant: str) -> None:
        """Return when there is such a batch.

        Raises:
            BatchNotFound: when there is none, or it is another tenant's.
        """
        async with self._database.reading() as session:
            await require(BatchRepository(session), batch_id, tenant=tenant)

    async def page(self, batch_id: str, *, tenant: str, after: int = 0, limit: int = _PAGE) -> list[dict[str, Any]]:
        """Return the next lines after a sequence number, none when there are no more yet.

        Raises:
            BatchNotFound: there is no such batch, or it is another tenant's.
            DatabaseUnavailable, RegistryUnavailable, StorageUnavailable: when one of them does not answer.
        """
        async with self._database.reading() as session:
            await require(BatchRepository(session), batch_id, tenant=tenant)
            rows = await UserRepository(session).results(batch_id, after=after, limit=limit)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def line(row: UserRow) -> dict[str, Any]:
            async with gate:
                return await self._line(row, tenant)

        lines = await asyncio.gather(*(line(row) for row in rows))
        async with self._database.reading() as session:
            erasing = await ErasureRepository(session).some_of(tenant, {each["user_id"] for each in lines})
            for each in lines:
                if each["user_id"] in erasing:
                    each |= {"profile": None, "error": _problem(BeingErased())}
                elif (made := each["profile"]) is not None:
                    shown = await as_shown(session, tenant, each["user_id"], read_document(made))
                    each["profile"] = shown.model_dump(mode="json")
        return lines

    async def stream(
        self, batch_id: str, *, tenant: str, after: int = 0, follow_seconds: float | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield every line after a sequence number; with `follow_seconds`, look again so often until the batch ends.

        Raises:
            LorryError: see `page`; also between two lines.
        """
        while True:
            ended = await self._has_ended(batch_id, tenant)  # before the lines: one that has ended gets no further ones
            while lines := await self.page(batch_id, tenant=tenant, after=after):
                for line in lines:
                    yield line
                after = lines[-1]["sequence"]
            if ended or follow_seconds is None:
                return
            await asyncio.sleep(follow_seconds)

    async def _has_ended(self, batch_id: str, tenant: str) -> bool:
        async with self._database.reading() as session:
            row = await require(BatchRepository(session), batch_id, tenant=tenant)
        return BatchState(row.state) in ENDED

    async def _line(self, row: UserRow, tenant: str) -> dict[str, Any]:
        """Return one line, with its profile as it was put away."""
        line: dict[str, Any] = {
            "sequence": row.sequence,
            "user_id": row.user_id,
            "status": UserState(row.state).value,
            "version": row.version,
            "version_id": row.version_id,
            "ended_at": row.ended_at.isoformat() if row.ended_at else None,
            "error": row.error,
            "profile": None,
        }
        if row.state == UserState.DONE and row.version_id is not None:
            place = Place(tenant=tenant, user=row.user_id, batch_id=row.batch_id, run=row.run)
            try:
                line["profile"] = json.loads(await self._vault.get(place, version_id=row.version_id))
            except _AWAY:
                raise
            except LorryError as exc:  # erased, suspended or retired since: there is nothing to read any more
                line["error"] = _problem(exc)
        return line


def _problem(why: LorryError) -> dict[str, str]:
    return {"code": problem_code(type(why)), "message": f"not readable any more: {why.message}"}


def to_line(line: dict[str, Any]) -> str:
    """Return one line of NDJSON."""
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"
