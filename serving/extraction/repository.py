"""The SQL of profiles. Every query names tenant and user; nothing here commits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.names import check_name
from serving.extraction.models import ProfileRow
from serving.extraction.profile.difference import Difference
from serving.extraction.profile.profile import Profile
from serving.extraction.profile.upgrade import read_document

_KEPT = 10  # the newest is shown, with what changed since the one before; the others are for a person to look at


class ProfileRepository:
    """Reads and writes `profile` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, tenant: str, profile: Profile, *, difference: Difference | None = None) -> None:
        """Keep `profile`, as it was extracted, as the newest one of its user; the last few before it stay.

        Raises:
            InvalidName: when `tenant` is no name.
        """
        row = {
            "tenant": check_name(tenant, field="tenant"),
            "user_id": profile.user,
            "version_id": profile.adapter.version_id,
            "document": profile.model_dump(mode="json"),
            "difference": None if difference is None else difference.model_dump(mode="json"),
            "created_at": profile.generated_at,
        }
        await self._session.execute(insert(ProfileRow).values(row))
        mine = (ProfileRow.tenant == tenant, ProfileRow.user_id == profile.user)
        oldest_kept = select(ProfileRow.id).where(*mine).order_by(ProfileRow.id.desc()).offset(_KEPT - 1).limit(1)
        await self._session.execute(delete(ProfileRow).where(*mine, ProfileRow.id < oldest_kept.scalar_subquery()))

    async def latest(self, tenant: str, user: str) -> Profile | None:
        """Return the newest profile as it was extracted, with nobody's corrections; None when none was.

        Whoever shows a profile to somebody asks `serving.extraction.corrections.shown` instead.

        Raises:
            InvalidName: when `tenant` or `user` is no name.
        """
        document = (await self._session.execute(_newest(ProfileRow.document, tenant, user))).scalar_one_or_none()
        return None if document is None else read_document(document)

    async def latest_difference(self, tenant: str, user: str) -> Difference | None:
        """Return how the newest profile differs from the one before; None when nothing was kept of that.

        Raises:
            InvalidName: when `tenant` or `user` is no name.
        """
        document = (await self._session.execute(_newest(ProfileRow.difference, tenant, user))).scalar_one_or_none()
        return None if document is None else Difference.model_validate(document)

    async def erase(self, tenant: str, user: str) -> int:
        """Delete every profile of a user, with its differences; return how many there were.

        Raises:
            InvalidName: when `tenant` or `user` is no name.
        """
        statement = (
            delete(ProfileRow)
            .where(ProfileRow.tenant == check_name(tenant, field="tenant"))
            .where(ProfileRow.user_id == check_name(user, field="user_id"))
            .returning(ProfileRow.id)
        )
        return len((await self._session.execute(statement)).all())

    async def count(self, tenant: str, user: str) -> int:
        """Return how many profiles are kept of the user."""
        mine = (ProfileRow.tenant == tenant, ProfileRow.user_id == user)
        query = select(func.count()).select_from(ProfileRow).where(*mine)
        return int((await self._session.execute(query)).scalar_one())


def _newest(column: Any, tenant: str, user: str) -> Select[Any]:
    return (
        select(column)
        .where(ProfileRow.tenant == check_name(tenant, field="tenant"))
        .where(ProfileRow.user_id == check_name(user, field="user_id"))
        .order_by(ProfileRow.id.desc())
        .limit(1)
    )
