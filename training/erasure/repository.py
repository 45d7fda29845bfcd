"""The SQL of taking a user's trainings away. Nothing here commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from training.curations.models import CurationRow
from training.erasure.models import DiskErasureRow
from training.jobs.costs.bill import BILL
from training.jobs.fleet.repository import alive
from training.jobs.models import (
    AnswerRow,
    CampaignRow,
    CampaignUserRow,
    CostRow,
    EventRow,
    FinishedRow,
    JobRow,
    StageRow,
    TrainedRow,
    WorkerRow,
    WritingRow,
)
from training.jobs.states import ACTIVE, HELD, State, Wish


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A worker whose disk is not cleared yet; `heard_at` is None when the fleet has forgotten it."""

    worker_id: str
    alive: bool
    heard_at: datetime | None


class TrainingErasureRepository:
    """What this room has of one user, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def jobs(self, *, tenant: str, user: str) -> list[JobRow]:
        """Return all of the user's jobs."""
        query = select(JobRow).where(JobRow.tenant == tenant, JobRow.user_id == user).order_by(JobRow.id)
        return list((await self._session.execute(query.execution_options(populate_existing=True))).scalars())

    async def stop_jobs(self, *, tenant: str, user: str) -> None:
        """End what no living worker holds, and have the others end at their next step."""
        mine = (JobRow.tenant == tenant, JobRow.user_id == user)
        holder = select(WorkerRow.id).where(alive())
        held = (JobRow.state.in_(HELD), JobRow.worker_id.in_(holder))
        await self._session.execute(update(JobRow).where(*mine, *held).values(wish=Wish.CANCEL))
        ended = {"state": State.CANCELED, "wish": Wish.NONE, "worker_id": None, "progress": None}
        still = select(JobRow.id).where(*mine, *held)
        await self._session.execute(
            update(JobRow)
            .where(*mine, JobRow.state.in_(ACTIVE), JobRow.id.not_in(still))
            .values(**ended, ended_at=func.now(), updated_at=func.now())
            .execution_options(synchronize_session=False)
        )

    async def holders(self, *, tenant: str, user: str) -> list[str]:
        """Return the workers that hold a job of the user's."""
        query = select(JobRow.worker_id).where(
            JobRow.tenant == tenant, JobRow.user_id == user, JobRow.state.in_(ACTIVE), JobRow.worker_id.is_not(None)
        )
        return sorted(str(each) for each in (await self._session.execute(query)).scalars())

    async def hide_in_campaigns(self, *, tenant: str, user: str, pseudonym: str) -> None:
        """Have campaigns count the user without naming them, and pass them over."""
        theirs = select(CampaignRow.id).where(CampaignRow.tenant == tenant)
        await self._session.execute(
            update(CampaignUserRow)
            .where(CampaignUserRow.campaign_id.in_(theirs), CampaignUserRow.user_id == user)
            .values(user_id=pseudonym, skipped="erased")
            .execution_options(synchronize_session=False)
        )

    async def counts(self, *, tenant: str, user: str) -> dict[str, int]:
        """Return how many rows there are of the user, by kind."""
        jobs = select(JobRow.id).where(JobRow.tenant == tenant, JobRow.user_id == user)
        queries = {
            "jobs": select(func.count()).select_from(jobs.subquery()),
            "stages": select(func.count()).where(StageRow.job_id.in_(jobs)),
            "events": select(func.count()).where(EventRow.job_id.in_(jobs)),
            "writings": select(func.count()).where(WritingRow.job_id.in_(jobs)),
            "answers": select(func.count()).where(AnswerRow.job_id.in_(jobs)),
            "finished trainings": select(func.count()).where(FinishedRow.job_id.in_(jobs)),
            "curated pairs": select(func.count()).where(CurationRow.tenant == tenant, CurationRow.user_id == user),
            "trainings remembered": select(func.count()).where(TrainedRow.tenant == tenant, TrainedRow.user_id == user),
            "costs": select(func.count()).where(CostRow.tenant == tenant, CostRow.user_id == user),
        }
        return {kind: int((await self._session.execute(query)).scalar_one()) for kind, query in queries.items()}

    async def remove(self, *, tenant: str, user: str, pseudonym: str) -> None:
        """Remove every row that says anything of the user; what was paid stays, without their name."""
        mine = (CostRow.tenant == tenant, CostRow.user_id == user)
        promised = (CostRow.job_id.startswith(BILL), CostRow.is_estimate, CostRow.earlier_run == 0)
        await self._session.execute(delete(CostRow).where(*mine, *promised))  # nobody goes on with what that was about
        await self._session.execute(update(CostRow).where(*mine).values(user_id=pseudonym))
        await self.hide_in_campaigns(tenant=tenant, user=user, pseudonym=pseudonym)
        for table in (JobRow, CurationRow, TrainedRow):  # what hangs on a job goes with it
            await self._session.execute(
                delete(table)
                .where(table.tenant == tenant, table.user_id == user)
                .execution_options(synchronize_session=False)
            )

    # Disks

    async def ask_workers(self, erasure_id: str, *, job_ids: Sequence[str], version_ids: Sequence[str]) -> None:
        """Ask every worker that is known to clear its disk; those that were asked stay asked."""
        workers = (await self._session.execute(select(WorkerRow.id))).scalars().all()
        rows = [
            {"erasure_id": erasure_id, "worker_id": each, "job_ids": list(job_ids), "version_ids": list(version_ids)}
            for each in workers
        ]
        if rows:
            await self._session.execute(insert(DiskErasureRow).values(rows).on_conflict_do_nothing())

    async def asked(self, worker_id: str) -> list[DiskErasureRow]:
        """Return what a worker still has to clear."""
        query = select(DiskErasureRow).where(DiskErasureRow.worker_id == worker_id, DiskErasureRow.ended_at.is_(None))
        return list((await self._session.execute(query.order_by(DiskErasureRow.asked_at))).scalars())

    async def end(self, erasure_id: str, worker_id: str, *, outcome: str, removed: int = 0) -> bool:
        """Write down that a worker's disk is cleared, or gone; False when it was not asked, or is done."""
        statement = (
            update(DiskErasureRow)
            .where(
                DiskErasureRow.erasure_id == erasure_id,
                DiskErasureRow.worker_id == worker_id,
                DiskErasureRow.ended_at.is_(None),
            )
            .values(outcome=outcome, removed=removed, ended_at=func.clock_timestamp())
            .returning(DiskErasureRow.worker_id)
        )
        return (await self._session.execute(statement)).first() is not None

    async def waiting(self, erasure_id: str) -> list[Waiting]:
        """Return the workers that have not cleared their disk."""
        query = (
            select(DiskErasureRow.worker_id, alive(), WorkerRow.heard_at)
            .outerjoin(WorkerRow, WorkerRow.id == DiskErasureRow.worker_id)
            .where(DiskErasureRow.erasure_id == erasure_id, DiskErasureRow.ended_at.is_(None))
            .order_by(DiskErasureRow.worker_id)
        )
        return [
            Waiting(worker_id=row[0], alive=bool(row[1]), heard_at=row[2]) for row in await self._session.execute(query)
        ]

    async def ended(self, erasure_id: str) -> list[DiskErasureRow]:
        """Return what became of every worker that was asked."""
        query = select(DiskErasureRow).where(
            DiskErasureRow.erasure_id == erasure_id, DiskErasureRow.ended_at.is_not(None)
        )
        return list((await self._session.execute(query.order_by(DiskErasureRow.worker_id))).scalars())
