"""Retention: keep the newest versions and every aliased one, retire the rest, remove their bytes after a delay."""

from __future__ import annotations

from kit.database import Database
from registry.errors import InvalidCursor
from registry.lifecycle.policy import TenantPolicy
from registry.lifecycle.remains import Remains
from registry.lifecycle.upkeep.repository import UpkeepRepository
from registry.lifecycle.upkeep.schemas import Finding, PassPage, Retain
from registry.lifecycle.upkeep.steps import At, StepPage, run_page
from registry.models import State

_REQUEST_SECONDS = 86_400
_WHY = "retention: neither among the newest nor named by an alias"


class Retention:
    """Lets go of what nobody needs. Each page can be run again, by several at once; an engine's leases hold it back."""

    def __init__(self, database: Database, remains: Remains, *, lease_seconds: float) -> None:
        """Work on `database` and the object store; engines silent for `lease_seconds` do not count as serving."""
        self._database = database
        self._remains = remains
        self._lease_seconds = lease_seconds

    async def run(self, request: Retain, *, actor: str) -> PassPage:
        """Run one page.

        Raises:
            InvalidCursor: for a cursor that no earlier page gave.
            StorageUnavailable: the page can be run again.
        """
        steps = {"retire": self._retire, "remove": self._remove, "requests": self._forget}
        return await run_page(steps, request, name="retain", actor=actor)

    async def _retire(self, at: At[Retain]) -> StepPage:
        """Retire what lies beyond the tenant's number of newest versions."""
        if not (at.after or "0").isdecimal():
            raise InvalidCursor("that cursor was not given by an earlier page of this pass", field="cursor")
        async with self._database.transaction() as session:
            repository = UpkeepRepository(session)
            adapters = await repository.list_adapters_from(after=int(at.after or "0"), limit=at.request.limit)
            keeps = {
                tenant: TenantPolicy.of(await repository.get_policy(tenant)).keep_versions
                for tenant in {tenant for _, tenant in adapters}
            }
            keep = {adapter_id: keeps[tenant] for adapter_id, tenant in adapters}
            superfluous = await repository.list_superfluous(keep, lease_seconds=self._lease_seconds)
        findings = [_retired(version_id, done=False) for _, version_id in superfluous]
        if not at.request.dry_run:
            findings = []
            for adapter_id in dict.fromkeys(adapter_id for adapter_id, _ in superfluous):
                findings += await self._retire_in(adapter_id, keep=keep[adapter_id], actor=at.actor)
        last = str(adapters[-1][0]) if len(adapters) == at.request.limit else None
        return StepPage(findings=findings, examined=len(adapters), after=last)

    async def _retire_in(self, adapter_id: int, *, keep: int, actor: str) -> list[Finding]:
        """Retire one adapter's superfluous versions, looked up anew under its lock: an alias may have moved."""
        findings = []
        async with self._database.transaction() as session:
            repository = UpkeepRepository(session)
            await repository.hold_adapter(adapter_id)
            found = await repository.list_superfluous({adapter_id: keep}, lease_seconds=self._lease_seconds)
            for _, version_id in found:
                retired = await repository.transition(
                    version_id, State.RETIRED, was=[State.READY], actor=actor, why=_WHY, reason=_WHY
                )
                if retired:
                    findings.append(_retired(version_id, done=True))
        return findings

    async def _remove(self, at: At[Retain]) -> StepPage:
        """Remove the bytes of retired versions: first the bytes, then the note that they are gone."""
        async with self._database.transaction() as session:
            repository = UpkeepRepository(session)
            due = await repository.list_removable(
                after=at.after,
                default_seconds=TenantPolicy().remove_after_seconds,
                lease_seconds=self._lease_seconds,
                limit=at.request.limit,
            )
            settled = await repository.list_settled(
                [known.version_id for known in due], settle_seconds=self._remains.settle_seconds
            )
        if not at.request.dry_run:
            for known in due:
                await self._remains.remove(known.owner, known.version_id)
                async with self._database.transaction() as session:
                    repository = UpkeepRepository(session)
                    if known.version_id in settled and await repository.mark_removed([known.version_id]):
                        repository.record(
                            at.actor,
                            "removed",
                            adapter_id=known.adapter_id,
                            version_id=known.version_id,
                            why="retention",
                        )
        findings = [
            Finding(
                kind="bytes of a retired version",
                version_id=known.version_id,
                action="remove",
                done=not at.request.dry_run,
            )
            for known in due
        ]
        last = due[-1].version_id if len(due) == at.request.limit else None
        return StepPage(findings=findings, examined=len(due), after=last)

    async def _forget(self, at: At[Retain]) -> StepPage:
        """Forget idempotency keys after a day."""
        async with self._database.transaction() as session:
            repository = UpkeepRepository(session)
            if at.request.dry_run:
                count = await repository.count_old_requests(older_seconds=_REQUEST_SECONDS)
            else:
                count = await repository.forget_requests(older_seconds=_REQUEST_SECONDS, limit=at.request.limit)
        findings = []
        if count:
            detail, done = f"{count} keys", not at.request.dry_run
            findings = [Finding(kind="old idempotency keys", action="forget", done=done, detail=detail)]
        more = not at.request.dry_run and count == at.request.limit
        return StepPage(findings=findings, examined=count, after="more" if more else None)


def _retired(version_id: str, *, done: bool) -> Finding:
    return Finding(kind="superfluous version", version_id=version_id, action="retire", done=done)
