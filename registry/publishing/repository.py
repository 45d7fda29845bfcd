"""SQL of publishing: claiming a number for a content."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from registry.manifest import Manifest
from registry.models import State, VersionRow
from registry.repository import RegistryRepository


class PublishingRepository(RegistryRepository):
    """What a publish reads and writes, within one transaction."""

    async def find_content(self, adapter_id: int, content_digest: str) -> VersionRow | None:
        """Return the version that has this content and may still be served."""
        return await self._session.scalar(
            select(VersionRow).where(
                VersionRow.adapter_id == adapter_id,
                VersionRow.content_digest == content_digest,
                VersionRow.state.in_((State.PENDING, State.UPLOADED, State.READY, State.SUSPENDED)),
            )
        )

    async def get_numbered(self, adapter_id: int, number: int) -> VersionRow | None:
        """Return the adapter's version of this number."""
        return await self._session.scalar(
            select(VersionRow).where(VersionRow.adapter_id == adapter_id, VersionRow.number == number)
        )

    async def next_number(self, adapter_id: int) -> int:
        """Return one more than the largest number in use; another transaction may take it first."""
        largest = await self._session.scalar(
            select(func.max(VersionRow.number)).where(VersionRow.adapter_id == adapter_id)
        )
        return (largest or 0) + 1

    async def add_version(self, adapter_id: int, manifest: Manifest) -> VersionRow | None:
        """Store a pending version; None when its number or its content was taken meanwhile."""
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
            )
            .on_conflict_do_nothing()
            .returning(VersionRow)
        )
        return await self._session.scalar(statement)
