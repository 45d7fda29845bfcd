"""Campaigns: train every user of a tenant again for another base model, in the background, at a bounded rate.

A user's `live` version stays what it is until theirs of the new base has passed its gate.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from kit.names import check_name
from training.jobs.campaigns.bases import require_known
from training.jobs.campaigns.repository import CampaignRepository
from training.jobs.errors import CampaignNotFound, IllegalJobTransition, JobRequestInvalid, TrainingActive
from training.jobs.job import Submission
from training.jobs.jobs import Jobs
from training.jobs.models import CampaignRow
from training.jobs.repository import JobRepository
from training.jobs.states import ENDED, Trigger
from transcripts.store import TranscriptStore

_MAX_PER_HOUR = 100_000.0
_ALLOWED = {
    "pause": {"running": "paused"},
    "resume": {"paused": "running"},
    "abort": {"running": "aborted", "paused": "aborted", "aborted": "aborted"},
}
_ENDED_USERS = frozenset(state.value for state in ENDED) | {"skipped", "forgotten"}


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """One campaign; `counts` says how many users are waiting, skipped, or in which state their job is."""

    id: str
    tenant: str
    base: str
    settings: dict[str, Any]
    state: str
    per_hour: float
    priority: int
    created_at: datetime
    ended_at: datetime | None
    counts: dict[str, int]

    @property
    def users(self) -> int:
        """How many users it is about."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """How many users' turns are over."""
        return sum(count for name, count in self.counts.items() if name in _ENDED_USERS)

    @property
    def eta_seconds(self) -> float | None:
        """How long the rate alone makes the rest of it last; None when it does not run."""
        if self.state != "running":
            return None
        return self.counts.get("waiting", 0) * 3600.0 / self.per_hour


class Campaigns:
    """Every campaign of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs = Jobs(database)

    async def begin(
        self,
        tenant: str,
        *,
        base: str,
        known: Collection[str],
        per_hour: float = 60.0,
        priority: int = -100,
        settings: Mapping[str, Any] | None = None,
        users: Sequence[str] | None = None,
    ) -> Campaign:
        """Begin a campaign for these users, or for everybody in the tenant who has transcripts.

        `known` are the ids of base models that can be trained for, see `bases.known_bases`.

        Raises:
            JobRequestInvalid: the rate cannot be kept, nobody registered the base, or there is nobody to train.
            InvalidName, ConfigInvalid: see `Submission.check`.
        """
        check_name(tenant, field="tenant")
        if not (math.isfinite(per_hour) and 0 < per_hour <= _MAX_PER_HOUR):
            raise JobRequestInvalid(f"per_hour must be above 0 and at most {_MAX_PER_HOUR:g}", field="per_hour")
        Submission(tenant=tenant, user="-", base=base, settings=settings or {}, priority=priority).check()
        require_known(base, known)
        async with self._database.transaction() as session:
            known = await TranscriptStore(session).users(tenant)
            wanted = sorted(set(users)) if users is not None else known
            if unknown := sorted(set(wanted) - set(known)):
                raise JobRequestInvalid(
                    f"{unknown[0]} has no transcripts; import some first, or leave them out", field="users"
                )
            if not wanted:
                raise JobRequestInvalid(f"nobody in {tenant} has transcripts; import some first", field="tenant")
            values = {
                "id": f"c{uuid.uuid4().hex}",
                "tenant": tenant,
                "base": base,
                "request": {"settings": dict(settings or {})},
                "per_hour": per_hour,
                "priority": priority,
            }
            repository = CampaignRepository(session)
            return await _campaign(repository, await repository.insert(values, users=wanted))

    async def get(self, campaign_id: str, *, tenant: str | None = None) -> Campaign:
        """Return one campaign.

        Raises:
            CampaignNotFound: there is none of that id, or it is another tenant's.
        """
        async with self._database.transaction() as session:
            repository = CampaignRepository(session)
            return await _campaign(repository, await _require(repository, campaign_id, tenant=tenant))

    async def list(self, *, tenant: str | None = None) -> list[Campaign]:
        """Return campaigns, the latest first."""
        async with self._database.transaction() as session:
            repository = CampaignRepository(session)
            return [await _campaign(repository, row) for row in await repository.page(tenant=tenant)]

    async def pause(self, campaign_id: str, *, tenant: str | None = None) -> Campaign:
        """Submit no more jobs; those that were submitted go on.

        Raises:
            CampaignNotFound, IllegalJobTransition: there is none, or it does not run.
        """
        return await self._move(campaign_id, "pause", tenant=tenant)

    async def resume(self, campaign_id: str, *, tenant: str | None = None) -> Campaign:
        """Submit jobs again.

        Raises:
            CampaignNotFound, IllegalJobTransition: there is none, or it is not paused.
        """
        return await self._move(campaign_id, "resume", tenant=tenant)

    async def abort(self, campaign_id: str, *, tenant: str | None = None) -> Campaign:
        """End the campaign and cancel its jobs that have not ended; versions that are live by then stay live.

        Again, it cancels what an abort that was cut short has left.

        Raises:
            CampaignNotFound, IllegalJobTransition: there is none, or it has ended.
        """
        await self._move(campaign_id, "abort", tenant=tenant)
        async with self._database.reading() as session:
            jobs = await CampaignRepository(session).active_jobs(campaign_id)
        for job_id in jobs:
            try:
                await self._jobs.cancel(job_id)
            except IllegalJobTransition:
                continue  # it ended meanwhile
        return await self.get(campaign_id, tenant=tenant)

    async def _move(self, campaign_id: str, verb: str, *, tenant: str | None) -> Campaign:
        async with self._database.transaction() as session:
            repository = CampaignRepository(session)
            row = await _require(repository, campaign_id, tenant=tenant, lock=True)
            state = _ALLOWED[verb].get(row.state)
            if state is None:
                raise IllegalJobTransition(f"{verb} does not apply to a campaign that is {row.state}", field="state")
            if state != row.state:
                await repository.set_state(campaign_id, state, ended=state == "aborted")
            return await _campaign(repository, await _require(repository, campaign_id))

    async def advance(self) -> int:
        """Submit the jobs whose turn has come and end campaigns that are through; return how many were submitted.

        A user whose adapter is being trained already, for another reason, keeps their place for the next time.
        """
        submitted = 0
        async with self._database.transaction() as session:
            for row in await CampaignRepository(session).running():
                submitted += await self._advance(session, row)
        return submitted

    async def _advance(self, session: AsyncSession, row: CampaignRow) -> int:
        repository = CampaignRepository(session)
        now = await JobRepository(session).now()
        last = await repository.last_submitted(row.id)
        turns = turns_due(per_hour=row.per_hour, last=last, now=now)
        submitted = 0
        for user in await repository.waiting(row.id, limit=turns + 50) if turns else []:
            if submitted == turns:
                break
            submitted += await self._submit(session, row, user, now=now)
        counts = await repository.counts(row.id)
        if all(name in _ENDED_USERS for name in counts):
            await repository.set_state(row.id, "done", ended=True)
        return submitted

    async def _submit(self, session: AsyncSession, row: CampaignRow, user: str, *, now: datetime) -> int:
        repository = CampaignRepository(session)
        if not (await TranscriptStore(session).summary(row.tenant, user)).transcripts:
            await repository.set_user(row.id, user, {"skipped": "no transcripts"})
            return 0
        submission = Submission(
            tenant=row.tenant,
            user=user,
            base=row.base,
            settings=row.request["settings"],
            priority=row.priority,
            trigger=Trigger.CAMPAIGN,
            campaign_id=row.id,
        )
        try:
            job = await self._jobs.submit_in(session, submission)
        except TrainingActive:
            return 0
        await repository.set_user(row.id, user, {"job_id": job.id, "submitted_at": now})
        return 1


def turns_due(*, per_hour: float, last: datetime | None, now: datetime) -> int:
    """Return how many jobs may be submitted now; time in which nothing could be submitted is not made up for.

    At most what two minutes are worth, and at least one when its time has come.
    """
    if last is None:
        return 1
    earned = (now.astimezone(UTC) - last.astimezone(UTC)).total_seconds() * per_hour / 3600.0
    return min(math.floor(earned), max(1, math.floor(per_hour / 30.0)))


async def _require(
    repository: CampaignRepository, campaign_id: str, *, tenant: str | None = None, lock: bool = False
) -> CampaignRow:
    row = await repository.get(campaign_id, tenant=tenant, lock=lock)
    if row is None:
        raise CampaignNotFound(
            f"there is no campaign {campaign_id[:64]!r}; `lorry campaigns` lists them", field="campaign_id"
        )
    return row


async def _campaign(repository: CampaignRepository, row: CampaignRow) -> Campaign:
    counts = await repository.counts(row.id)
    through = row.state == "running" and all(name in _ENDED_USERS for name in counts)  # workers write it down later
    return Campaign(
        id=row.id,
        tenant=row.tenant,
        base=row.base,
        settings=row.request.get("settings", {}),
        state="done" if through else row.state,
        per_hour=row.per_hour,
        priority=row.priority,
        created_at=row.created_at,
        ended_at=row.ended_at,
        counts=counts,
    )
