"""The SQL of extraction. Every query names tenant and user; nothing here commits."""

from __future__ import annotations

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.names import check_name
from serving.extraction.models import ProfileRow
from serving.extraction.profile import Profile


class ProfileRepository:
    """Reads and writes `profile` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, tenant: str, profile: Profile) -> None:
        """Keep `profile` as the newest one of its user; older ones stay.

        Raises:
            InvalidName: when `tenant` is no name.
        """
        row = {
            "tenant": check_name(tenant, field="tenant"),
            "user_id": profile.user,
            "version_id": profile.adapter.version_id,
            "document": profile.model_dump(mode="json"),
            "created_at": profile.generated_at,
        }
        await self._session.execute(insert(ProfileRow).values(row))

    async def latest(self, tenant: str, user: str) -> Profile | None:
        """Return the newest profile; None when none was extracted.

        Raises:
            InvalidName: when `tenant` or `user` is no name.
        """
        statement = (
            select(ProfileRow.document)
            .where(ProfileRow.tenant == check_name(tenant, field="tenant"))
            .where(ProfileRow.user_id == check_name(user, field="user_id"))
            .order_by(ProfileRow.id.desc())
            .limit(1)
        )
        document = (await self._session.execute(statement)).scalar_one_or_none()
        return None if document is None else Profile.model_validate(document)

    async def count(self, tenant: str, user: str) -> int:
        """Return how many profiles are kept of the user."""
        mine = (ProfileRow.tenant == tenant, ProfileRow.user_id == user)
        return int(
            (await self._session.execute(select(func.count()).select_from(ProfileRow).where(*mine))).scalar_one()
        )

    async def erase(self, tenant: str, user: str) -> None:
        """Remove every profile of the user."""
        await self._session.execute(delete(ProfileRow).where(ProfileRow.tenant == tenant, ProfileRow.user_id == user))
