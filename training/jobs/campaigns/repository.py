"""The SQL of campaigns. Nothing here commits; `None` means "there is none"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from training.jobs.models import CampaignRow, CampaignUserRow, JobRow
from training.jobs.states import ACTIVE


class CampaignRepository:
    """Reads and writes campaigns and their users through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def insert(self, values: Mapping[str, Any], *, users: Sequence[str]) -> CampaignRow:
        """Store a campaign and whom it is about."""
        row = (await self._session.execute(insert(CampaignRow).values(**values).returning(CampaignRow))).scalars().one()
        if users:
            rows = [{"campaign_id": row.id, "user_id": user} for user in users]
            await self._session.execute(insert(CampaignUserRow), rows)
        return row

    async def get(self, campaign_id: str, *, tenant: str | None = None, lock: bool = False) -> CampaignRow | None:
        """Return one campaign; with `tenant`, only when it is that tenant's."""
        query = select(CampaignRow).where(CampaignRow.id == campaign_id).execution_options(populate_existing=True)
        if tenant is not None:
            query = query.where(CampaignRow.tenant == tenant)
        return (await self._session.execute(query.with_for_update() if lock else query)).scalars().one_or_none()

    async def page(self, *, tenant: str | None, limit: int = 100) -> list[CampaignRow]:
        """Return campaigns, the latest first."""
        query = select(CampaignRow).order_by(CampaignRow.created_at.desc(), CampaignRow.id).limit(limit)
        if tenant is not None:
            query = query.where(CampaignRow.tenant == tenant)
        return list((await self._session.execute(query)).scalars())

    async def running(self) -> list[CampaignRow]:
        """Return the campaigns that submit jobs, the oldest first; each is locked, those that others hold left out."""
        query = select(CampaignRow).where(CampaignRow.state == "running").order_by(CampaignRow.created_at)
        return list((await self._session.execute(query.with_for_update(skip_locked=True))).scalars())

    async def set_state(self, campaign_id: str, state: str, *, ended: bool) -> None:
        """Move a campaign to another state."""
        values = {"state": state, **({"ended_at": func.now()} if ended else {})}
        await self._session.execute(update(CampaignRow).where(CampaignRow.id == campaign_id).values(**values))

    async def waiting(self, campaign_id: str, *, limit: int) -> list[str]:
        """Return users whose turn has not come, in order, but nobody who has a job of another kind that is active."""
        busy = exists().where(
            JobRow.tenant == CampaignRow.tenant,
            JobRow.user_id == CampaignUserRow.user_id,
            JobRow.state.in_(ACTIVE),
        )
        query = (
            select(CampaignUserRow.user_id)
            .join(CampaignRow, CampaignRow.id == CampaignUserRow.campaign_id)
            .where(
                CampaignUserRow.campaign_id == campaign_id,
                CampaignUserRow.job_id.is_(None),
                CampaignUserRow.skipped.is_(None),
                ~busy,
            )
            .order_by(CampaignUserRow.user_id)
            .limit(limit)
        )
        return list((await self._session.execute(query)).scalars())

    async def set_user(self, campaign_id: str, user: str, values: Mapping[str, Any]) -> None:
        """Write down what became of a user's turn."""
        statement = update(CampaignUserRow).where(
            CampaignUserRow.campaign_id == campaign_id, CampaignUserRow.user_id == user
        )
        await self._session.execute(statement.values(**values))

    async def last_submitted(self, campaign_id: str) -> datetime | None:
        """Return when the campaign submitted a job last; None before its first."""
        query = select(func.max(CampaignUserRow.submitted_at)).where(CampaignUserRow.campaign_id == campaign_id)
        return (await self._session.execute(query)).scalar_one()

    async def counts(self, campaign_id: str) -> dict[str, int]:
        """Return how many users are ``waiting``, ``skipped``, ``forgotten``, or have a job in which state."""
        query = (
            select(
                CampaignUserRow.skipped.is_not(None), CampaignUserRow.job_id.is_not(None), JobRow.state, func.count()
            )
            .outerjoin(JobRow, JobRow.id == CampaignUserRow.job_id)
            .where(CampaignUserRow.campaign_id == campaign_id)
            .group_by(CampaignUserRow.skipped.is_not(None), CampaignUserRow.job_id.is_not(None), JobRow.state)
        )
        counts: dict[str, int] = {}
        for skipped, submitted, job_state, count in await self._session.execute(query):
            name = "skipped" if skipped else job_state or ("forgotten" if submitted else "waiting")
            counts[name] = counts.get(name, 0) + count
        return counts

    async def active_jobs(self, campaign_id: str) -> list[str]:
        """Return the campaign's jobs that have not ended."""
        query = select(JobRow.id).where(JobRow.campaign_id == campaign_id, JobRow.ended_at.is_(None))
        return list((await self._session.execute(query)).scalars())
