"""A tenant's users as its rules see them: what is stored, what was trained, and who is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from training.jobs.job import DEFAULT_ADAPTER
from training.jobs.repository import JobRepository
from training.jobs.staleness import Due, Knowledge, Rules, due
from training.jobs.states import State
from training.jobs.triggers.repository import RulesRepository, TrainedRepository
from transcripts.store import TranscriptStore


@dataclass(frozen=True, kw_only=True)
class Staleness:
    """One user of a tenant: what is stored, what was trained, and whether and why a training is due."""

    user: str
    words: int
    trained_words: int | None
    trained_at: datetime | None
    base: str | None
    due: Due | None
    active_job: str | None
    last_state: State | None


async def who_is_stale(
    session: AsyncSession, tenant: str, *, base: str | None, adapter: str = DEFAULT_ADAPTER, rules: Rules | None = None
) -> list[Staleness]:
    """Return every user of the tenant with whether and why a training is due; `base` is the one wanted now."""
    repository = JobRepository(session)
    rules = rules or await RulesRepository(session).get(tenant)
    words = await TranscriptStore(session).own_words(tenant)
    trained, latest = (
        await TrainedRepository(session).all(tenant=tenant, adapter=adapter),
        await repository.latest(tenant=tenant),
    )
    now = await repository.now()
    found = []
    for user in sorted(words):
        row, job = trained.get(user), latest.get(user)
        known = Knowledge(
            words=words[user],
            trained_words=row.words if row else None,
            trained_at=row.trained_at if row else None,
            trained_base=row.base if row else None,
            wanted_base=base,
            submitted_at=job.submitted_at if job else None,
        )
        found.append(
            Staleness(
                user=user,
                words=known.words,
                trained_words=known.trained_words,
                trained_at=known.trained_at,
                base=known.trained_base,
                due=due(known, rules, now=now),
                active_job=job.id if job and job.ended_at is None else None,
                last_state=State(job.state) if job else None,
            )
        )
    return found
