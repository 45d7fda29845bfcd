"""SQL of publishing: base models, claiming a number for a content, what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from registry.artifact.findings import ValidationReport
from registry.manifest import BaseShape, Manifest, RegisteredBase
from registry.models import AdapterRow, BaseModelRow, State, VersionRow, VersionTranscriptRow
from registry.repository import RegistryRepository, obstacle

_UNFINISHED = (State.PENDING, State.UPLOADED)
_COUNTED = (State.PENDING, State.UPLOADED, State.READY, State.SUSPENDED)


@dataclass(frozen=True, kw_only=True)
class Held:
    """A version as a grant needs it; `obstacle` says why it may not be served, None = it may."""

    row: VersionRow
    obstacle: str | None
    now: datetime


class PublishingRepository(RegistryRepository):
    """What a publish reads and writes, within one transaction."""

    async def add_base(self, base: RegisteredBase) -> bool:
        """Store a base model unless its id is taken; say whether it was new."""
        statement = (
            insert(BaseModelRow)
            .values(id=base.id, identity=base.model_dump(mode="json"))
            .on_conflict_do_nothing()
            .returning(BaseModelRow.id)
        )
        return (await self._session.scalar(statement)) is not None

    async def lock_base(self, base_id: str) -> RegisteredBase:
        """Return a base model that is known to exist, which nobody can change until this transaction ends."""
        row = await self._session.get_one(BaseModelRow, base_id, with_for_update=True, populate_existing=True)
        return RegisteredBase.model_validate(row.identity)

    async def replace_base(self, base: RegisteredBase) -> None:
        """Store what more is known of a base model."""
        statement = update(BaseModelRow).where(BaseModelRow.id == base.id)
        await self._session.execute(statement.values(identity=base.model_dump(mode="json")))

    async def list_bases(self) -> list[RegisteredBase]:
        """Return every base model, by id."""
        rows = await self._session.scalars(select(BaseModelRow).order_by(BaseModelRow.id))
        return [RegisteredBase.model_validate(row.identity) for row in rows]

    async def find_content(self, adapter_id: int, content_digest: str) -> VersionRow | None:
        """Return the version that has this content and may still be served."""
        return await self._session.scalar(
            select(VersionRow).where(
                VersionRow.adapter_id == adapter_id,
                VersionRow.content_digest == content_digest,
                VersionRow.state.in_(_COUNTED),
            )
        )

    async def get_numbered(self, adapter_id: int, number: int) -> VersionRow | None:
        """Return the adapter's version of this number."""
        return await self._session.scalar(
            select(VersionRow).where(VersionRow.adapter_id == adapter_id, VersionRow.number == number)
        )

    async def next_number(self, adapter_id: int) -> tuple[int, datetime]:
        """Return one more than the largest number in use, and the time; another transaction may take it first."""
        largest, now = (
            await self._session.execute(
                select(func.max(VersionRow.number), func.now()).where(VersionRow.adapter_id == adapter_id)
            )
        ).one()
        return (largest or 0) + 1, now

    async def add_version(
        self, adapter_id: int, manifest: Manifest, *, data_key_id: str, pending: dict[str, Any]
    ) -> VersionRow | None:
        """Store a pending version; None when its number or its content was taken meanwhile.

        `pending` is what completing needs beside the manifest; it gives way to the validation report.
        """
        statement = (
            insert(VersionRow)
            .values(
                version_id=manifest.version_id,
                adapter_id=adapter_id,
                number=manifest.version,
                state=State.PENDING,
                base_id=manifest.base.id,
                content_digest=manifest.content_digest,
                manifest=manifest.model_dump(mode="json"),
                manifest_digest=manifest.digest,
                size_bytes=sum(file.size_bytes for file in manifest.files),
                created_at=manifest.created_at,
                data_key_id=data_key_id,
                validation=pending,
            )
            .on_conflict_do_nothing()
            .returning(VersionRow)
        )
        return await self._session.scalar(statement)

    async def get_publish(self, version_id: str) -> tuple[VersionRow, BaseShape | None] | None:
        """Return a version, whatever its state, and the sizes of its base."""
        found = (
            await self._session.execute(
                select(VersionRow, BaseModelRow.identity)
                .join(BaseModelRow, BaseModelRow.id == VersionRow.base_id)
                .where(VersionRow.version_id == version_id)
            )
        ).one_or_none()
        return (found[0], RegisteredBase.model_validate(found[1]).shape) if found else None

    async def reject(
        self, manifest: Manifest, report: ValidationReport, *, reason: str, field: str | None, actor: str
    ) -> bool:
        """Reject an unfinished version for good; say whether it was unfinished."""
        return await self.transition(
            manifest.version_id,
            State.REJECTED,
            was=_UNFINISHED,
            actor=actor,
            why=reason,
            reason=reason,
            reason_field=field,
            validation=report.model_dump(mode="json"),
        )

    async def make_ready(
        self,
        manifest: Manifest,
        report: ValidationReport,
        *,
        sealed_bytes: int,
        signature: dict[str, Any] | None,
        actor: str,
    ) -> bool:
        """Make a version ready and remember where it came from; say whether it was uploaded and nothing else."""
        if not await self.transition(
            manifest.version_id,
            State.READY,
            was=[State.UPLOADED],
            actor=actor,
            ready_at=func.now(),
            sealed_bytes=sealed_bytes,
            validation=report.model_dump(mode="json"),
            signature=signature,
        ):
            return False
        await self.add_transcripts(manifest)
        return True

    async def set_pending(self, version_id: str, pending: dict[str, Any]) -> None:
        """Replace what completing an unfinished version needs."""
        await self._session.execute(
            update(VersionRow)
            .where(VersionRow.version_id == version_id, VersionRow.state.in_(_UNFINISHED))
            .values(validation=pending)
        )

    async def get_held(self, version_id: str) -> Held | None:
        """Return a version and whether it may be served now, in one statement."""
        found = (
            await self._session.execute(
                select(VersionRow, obstacle(), func.now())
                .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
                .where(VersionRow.version_id == version_id)
            )
        ).one_or_none()
        return Held(row=found[0], obstacle=found[1], now=found[2]) if found else None

    async def count_adapters(self, tenant: str, *, at_most: int) -> int:
        """Return how many adapters a tenant has, counting no further than `at_most`; others wait until the end."""
        await self._session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"adapters {tenant}", 0))))
        few = select(AdapterRow.id).where(AdapterRow.tenant == tenant).limit(at_most).subquery()
        return await self._session.scalar(select(func.count()).select_from(few)) or 0

    async def count_room(self, adapter_id: int) -> int:
        """Return how many versions of an adapter count against its limit; others wait until this transaction ends."""
        await self._session.execute(select(AdapterRow.id).where(AdapterRow.id == adapter_id).with_for_update())
        statement = select(func.count()).where(VersionRow.adapter_id == adapter_id, VersionRow.state.in_(_COUNTED))
        return await self._session.scalar(statement) or 0

    async def add_transcripts(self, manifest: Manifest) -> None:
        """Remember which transcripts a version was trained on."""
        rows = [
            {"transcript_id": transcript_id, "version_id": manifest.version_id}
            for transcript_id in sorted(set(manifest.lineage.transcript_ids))
        ]
        if rows:
            await self._session.execute(insert(VersionTranscriptRow).on_conflict_do_nothing(), rows)
