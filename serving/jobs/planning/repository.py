"""The SQL that planning needs beside that of batches: which profiles users have. Nothing here commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession

from serving.extraction.models import ProfileRow


@dataclass(frozen=True, kw_only=True)
class Known:
    """The newest profile of a user, as far as its age goes."""

    version_id: str
    bank: tuple[str | None, str | None]
    created_at: datetime


class KnownProfiles:
    """Reads the newest profiles of many users through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def of(self, tenant: str, users: Sequence[str]) -> dict[str, Known]:
        """Return the newest profile of each user who has one."""
        bank = ProfileRow.document["bank"]
        query = (
            select(
                ProfileRow.user_id,
                ProfileRow.version_id,
                bank["name"].astext,
                bank["version"].astext,
                ProfileRow.created_at,
            )
            .ext(distinct_on(ProfileRow.user_id))
            .where(ProfileRow.tenant == tenant, ProfileRow.user_id.in_(users))
            .order_by(ProfileRow.user_id, ProfileRow.id.desc())
        )
        return {
            user: Known(version_id=version_id, bank=(name, version), created_at=created)
            for user, version_id, name, version, created in await self._session.execute(query)
        }
