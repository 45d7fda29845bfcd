"""Reconcile: let the tables and the object store agree again after whatever was killed between two steps.

Six steps, each safe to repeat and to run beside everything else: finish or reject publishes that nobody goes on with;
remove what dead versions left; drop incoming leftovers and unfinished uploads; find objects without rows; suspend
versions whose object is missing or damaged.

Rows are written before anything is put into the store and are never deleted, so an object is judged by its row's
state, read after the object was listed; no clock but the database's is asked.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from kit.database import Database
from kit.errors import LorryError, problem_code
from kit.storage import ObjectStorage
from registry.errors import TooMuchMissing
from registry.lifecycle.remains import Remains
from registry.lifecycle.upkeep.repository import Known, UpkeepRepository
from registry.lifecycle.upkeep.schemas import Finding, PassPage, Reconcile
from registry.lifecycle.upkeep.steps import At, StepPage, run_page
from registry.models import State
from registry.publishing.layout import INCOMING, SEALED, incoming_prefix

_log = logging.getLogger(__name__)
_UNFINISHED = (State.PENDING, State.UPLOADED)
_VERSION_ID = r"(?P<version_id>v[0-9a-f]{32})"
_INCOMING_KEY = re.compile(rf"{INCOMING}{_VERSION_ID}/.*", re.DOTALL)
_VERSION_KEY = re.compile(rf"{SEALED}[^/]+/users/[^/]+/versions/{_VERSION_ID}(/.*)?", re.DOTALL)
_HEADS_AT_ONCE = 16
_TOLERATED_MISSING = 3
_LEAST_SERVED = 100
_PAGE_SECONDS = 30.0
_BROKEN, _OUTAGE = 500, 503


class Completer(Protocol):
    """What finishes a publish: the publisher."""

    def __call__(self, version_id: str, *, actor: str) -> Awaitable[object]:
        """Verify what was uploaded and make the version ready, or say why not."""


class Reconciler:
    """Finds what does not agree, and puts it right."""

    def __init__(
        self,
        database: Database,
        storage: ObjectStorage,
        remains: Remains,
        *,
        complete: Completer,
        abandoned_seconds: float,
    ) -> None:
        """Work on `database` and `storage`; a publish that was not begun again for `abandoned_seconds` is given up."""
        self._database = database
        self._storage = storage
        self._remains = remains
        self._complete = complete
        self._abandoned_seconds = abandoned_seconds

    async def run(self, request: Reconcile, *, actor: str) -> PassPage:
        """Run one page.

        Raises:
            InvalidCursor: for a cursor that no earlier page gave.
            TooMuchMissing: when most objects of a page are missing, which looks like a wrong bucket.
            StorageUnavailable: the page can be run again.
        """
        steps: dict[str, Callable[[At[Reconcile]], Awaitable[StepPage]]] = {
            "half-done publishes": self._unfinished,
            "bytes of dead versions": self._unremoved,
            "incoming leftovers": self._incoming,
            "unfinished uploads": self._uploads,
            "objects without rows": self._objects,
            "rows without objects": self._rows,
        }
        return await run_page(steps, request, name="reconcile", actor=actor)

    async def _unfinished(self, at: At[Reconcile]) -> StepPage:
        async with self._database.transaction() as session:
            found = await UpkeepRepository(session).list_unfinished(
                after=at.after, older_seconds=self._abandoned_seconds, limit=at.request.limit
            )
        findings, began = [], time.monotonic()
        for known in found:
            findings.append(await self._finish_or_reject(known, at))
            if time.monotonic() - began > _PAGE_SECONDS:  # whoever waits for this page must not lose patience
                return StepPage(findings=findings, examined=len(findings), after=known.version_id)
        return _by_version(found, findings, at.request.limit)

    async def _finish_or_reject(self, known: Known, at: At[Reconcile]) -> Finding:
        """Complete what was uploaded whole; reject what was not, or what no complete will ever accept."""
        kind = "half-done publish"
        if at.request.dry_run:
            return Finding(kind=kind, version_id=known.version_id, action="finish or reject", done=False)
        try:
            await self._complete(known.version_id, actor=at.actor)
        except LorryError as exc:
            if exc.status_code == _OUTAGE:
                raise  # which says nothing about this version: run the page again
            if exc.status_code >= _BROKEN:
                return _left(known.version_id, exc.message)  # this registry cannot judge it
            rejected = await self._reject(known, exc, actor=at.actor)
            action = "reject" if rejected else "none"  # somebody else ended it meanwhile, or began it again
            return Finding(kind=kind, version_id=known.version_id, action=action, done=True, detail=exc.message)
        except Exception as exc:  # one version that nobody foresaw must not keep all others from being looked at
            _log.exception("version %s can be neither finished nor rejected", known.version_id)
            return _left(known.version_id, type(exc).__name__)
        return Finding(kind=kind, version_id=known.version_id, action="finish", done=True)

    async def _reject(self, known: Known, found: LorryError, *, actor: str) -> bool:
        async with self._database.transaction() as session:
            repository = UpkeepRepository(session)
            await repository.lock_version(known.version_id)
            if not await repository.is_abandoned(known.version_id, older_seconds=self._abandoned_seconds):
                return False
            rejected = await repository.transition(
                known.version_id,
                State.REJECTED,
                was=_UNFINISHED,
                actor=actor,
                why=f"abandoned: {problem_code(type(found))}",  # never the message, which may quote the content
                reason=f"abandoned: {found.message}",
                reason_field=found.field,
                validation=None,  # until now it held what the publish needed to go on
            )
        await self._remove_dead([known.version_id])
        return rejected

    async def _unremoved(self, at: At[Reconcile]) -> StepPage:
        async with self._database.transaction() as session:
            found = await UpkeepRepository(session).list_unremoved_anywhere(after=at.after, limit=at.request.limit)
        if at.request.dry_run:
            left = {known.version_id: await self._remains.count(known.owner, known.version_id) for known in found}
        else:
            left = await self._remove_dead([known.version_id for known in found])
        dead = [version_id for version_id, count in left.items() if count]
        findings = [_finding("bytes of a dead version", "remove", at, version_id=version_id) for version_id in dead]
        return _by_version(found, findings, at.request.limit)

    async def _incoming(self, at: At[Reconcile]) -> StepPage:
        page = await self._storage.list_page(INCOMING, after=at.after, limit=at.request.limit)
        findings = []
        known = await self._look_up(_INCOMING_KEY, (found.key for found in page))
        leftovers: set[str] = set()
        for found in page:
            named = _INCOMING_KEY.fullmatch(found.key)
            version = known.get(named["version_id"]) if named else None
            if version is None or named is None:
                findings.append(await self._unknown(found.key, at))
            elif version.state not in _UNFINISHED:
                leftovers.add(version.version_id)
                findings.append(
                    _finding("incoming leftover", "remove", at, version_id=version.version_id, key=found.key)
                )
        if not at.request.dry_run:
            for version_id in sorted(leftovers):
                await self._storage.erase(incoming_prefix(version_id))
        return _by_key([found.key for found in page], findings, at)

    async def _uploads(self, at: At[Reconcile]) -> StepPage:
        """Abort uploads in parts that belong to nothing that is being published."""
        findings, examined = [], 0
        for prefix, pattern in ((INCOMING, _INCOMING_KEY), (SEALED, _VERSION_KEY)):
            uploads = await self._storage.multipart.list_unfinished(prefix)
            examined += len(uploads)
            known = await self._look_up(pattern, (upload.key for upload in uploads))
            for upload in uploads:
                named = pattern.fullmatch(upload.key)
                if named is None:
                    continue  # another room's
                version_id = named["version_id"]
                version = known.get(version_id)
                if version is not None and version.state in _UNFINISHED:
                    continue
                aborting = version is not None or at.request.remove_unknown
                if aborting and not at.request.dry_run:
                    await self._storage.multipart.abort(upload)
                kind = "unfinished upload" if version is not None else "unfinished upload without a row"
                action = "abort" if aborting else "look at it; abort it with remove_unknown"
                done = aborting and not at.request.dry_run
                findings.append(Finding(kind=kind, version_id=version_id, key=upload.key, action=action, done=done))
        return StepPage(findings=findings, examined=examined, after=None)

    async def _objects(self, at: At[Reconcile]) -> StepPage:
        page = await self._storage.list_page(SEALED, after=at.after, limit=at.request.limit)
        findings = []
        known = await self._look_up(_VERSION_KEY, (found.key for found in page))
        for found in page:
            named = _VERSION_KEY.fullmatch(found.key)
            if named is None:
                continue  # another room's
            version = known.get(named["version_id"])
            if version is None:
                findings.append(await self._unknown(found.key, at, version_id=named["version_id"]))
            elif version.gone:
                findings.append(
                    _finding("bytes of a dead version", "remove", at, version_id=version.version_id, key=found.key)
                )
                if not at.request.dry_run:
                    await self._storage.erase(found.key)
        return _by_key([found.key for found in page], findings, at)

    async def _rows(self, at: At[Reconcile]) -> StepPage:
        async with self._database.transaction() as session:
            # Few would not tell a wrong bucket from a few lost objects.
            limit = max(at.request.limit, _LEAST_SERVED)
            served = await UpkeepRepository(session).list_served(after=at.after, limit=limit)
        limiter = asyncio.Semaphore(_HEADS_AT_ONCE)

        async def look(known: Known) -> str | None:
            async with limiter:
                return await self._remains.damage(known.owner, known.version_id, sealed_bytes=known.sealed_bytes)

        damages = await asyncio.gather(*[look(known) for known in served])
        broken = [(known, damage) for known, damage in zip(served, damages, strict=True) if damage]
        if len(broken) > max(_TOLERATED_MISSING, len(served) // 2) and not (at.request.force or at.request.dry_run):
            raise TooMuchMissing(
                f"{len(broken)} of {len(served)} objects are missing or damaged; is this the right bucket and prefix?",
                field="force",
            )
        findings = [await self._suspend(known, damage, at) for known, damage in broken]
        return _by_version(served, findings, limit)

    async def _suspend(self, known: Known, damage: str, at: At[Reconcile]) -> Finding:
        """Suspend a ready version without a whole object; nobody could install it, and whoever has it may be wrong."""
        kind = "row without a whole object"
        if known.state == State.SUSPENDED:
            action = "publish it again, or erase it"
            return Finding(kind=kind, version_id=known.version_id, action=action, done=False, detail=damage)
        if not at.request.dry_run:
            async with self._database.transaction() as session:
                await UpkeepRepository(session).transition(
                    known.version_id,
                    State.SUSPENDED,
                    was=[State.READY],
                    actor=at.actor,
                    why=f"reconcile: {damage}",
                    reason=damage,
                )
        return _finding(kind, "suspend", at, version_id=known.version_id, detail=damage)

    async def _unknown(self, key: str, at: At[Reconcile], *, version_id: str | None = None) -> Finding:
        """Report an object that no row speaks of; remove it only when told to."""
        removing = at.request.remove_unknown and not at.request.dry_run
        if removing:
            await self._storage.erase(key)
        action = "remove" if at.request.remove_unknown else "look at it; remove it with remove_unknown"
        return Finding(kind="object without a row", version_id=version_id, key=key, action=action, done=removing)

    async def _remove_dead(self, version_ids: Sequence[str]) -> dict[str, int]:
        """Remove the bytes of versions that are dead now, then note that they are gone, if nobody can bring them back.

        Returns:
            How much there was of each.
        """
        async with self._database.transaction() as session:
            repository = UpkeepRepository(session)
            known = await repository.find_known(version_ids)
            dead = [each for each in known.values() if each.gone]
            settled = await repository.list_settled(
                [each.version_id for each in dead], settle_seconds=self._remains.settle_seconds
            )
        removed = {each.version_id: await self._remains.remove(each.owner, each.version_id) for each in dead}
        async with self._database.transaction() as session:
            await UpkeepRepository(session).mark_removed(settled)
        return removed

    async def _look_up(self, pattern: re.Pattern[str], keys: Iterable[str]) -> dict[str, Known]:
        """Return what is known now of the versions that these keys name."""
        named = {found["version_id"] for key in keys if (found := pattern.fullmatch(key))}
        if not named:
            return {}
        async with self._database.transaction() as session:
            return await UpkeepRepository(session).find_known(sorted(named))


def _left(version_id: str, detail: str) -> Finding:
    return Finding(
        kind="half-done publish", version_id=version_id, action="finish or reject", done=False, detail=detail
    )


def _finding(
    kind: str,
    action: str,
    at: At[Reconcile],
    *,
    version_id: str | None = None,
    key: str | None = None,
    detail: str | None = None,
) -> Finding:
    done = not at.request.dry_run
    return Finding(kind=kind, version_id=version_id, key=key, action=action, done=done, detail=detail)


def _by_version(page: Sequence[Known], findings: list[Finding], limit: int) -> StepPage:
    last = page[-1].version_id if len(page) == limit else None
    return StepPage(findings=findings, examined=len(page), after=last)


def _by_key(keys: Sequence[str], findings: list[Finding], at: At[Reconcile]) -> StepPage:
    return StepPage(findings=findings, examined=len(keys), after=keys[-1] if len(keys) == at.request.limit else None)
