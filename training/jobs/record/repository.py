"""The SQL of a job's record: the stages that it finished, and its events. Nothing here commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from training.jobs.models import EventRow, StageRow
from training.jobs.states import Stage

_RECENT = 20


class RecordRepository:
    """Reads and writes `training_stage` and `training_event` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def stages(self, job_id: str) -> dict[Stage, dict[str, Any]]:
        """Return the results of the stages that the job has finished."""
        query = select(StageRow.stage, StageRow.result).where(StageRow.job_id == job_id)
        return {Stage(stage): result for stage, result in await self._session.execute(query)}

    async def result(self, job_id: str, stage: Stage, *, lock: bool = False) -> dict[str, Any] | None:
        """Return the result of one stage, which nobody changes once it is locked; None when it is not finished."""
        query = select(StageRow.result).where(StageRow.job_id == job_id, StageRow.stage == stage)
        return (await self._session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()

    async def add_stage(self, job_id: str, stage: Stage, *, result: Mapping[str, Any], seconds: float) -> bool:
        """Keep a stage's result; False when it was kept before, and then nothing changes."""
        statement = (
            insert(StageRow)
            .values(job_id=job_id, stage=stage, result=dict(result), seconds=seconds)
            .on_conflict_do_nothing()
            .returning(StageRow.stage)
        )
        return (await self._session.execute(statement)).first() is not None

    async def forget_stages(self, job_id: str, *stages: Stage) -> None:
        """Have these stages done again when the job is retried; all of them without any."""
        query = delete(StageRow).where(StageRow.job_id == job_id)
        await self._session.execute(query.where(StageRow.stage.in_(stages)) if stages else query)

    async def beginnings(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Return the beginning of each of the jobs whose transcripts are decided on; empty for one of an older form."""
        query = select(StageRow.job_id, StageRow.result["beginning"].astext).where(
            StageRow.job_id.in_(job_ids), StageRow.stage == Stage.SNAPSHOT
        )
        return {job_id: beginning or "" for job_id, beginning in await self._session.execute(query)}

    async def usual_seconds(self) -> dict[Stage, float]:
        """Return each stage's mean duration over the latest jobs."""
        turn = func.row_number().over(partition_by=StageRow.stage, order_by=StageRow.finished_at.desc())
        recent = select(StageRow.stage, StageRow.seconds, turn.label("turn")).subquery()
        query = (
            select(recent.c.stage, func.avg(recent.c.seconds)).where(recent.c.turn <= _RECENT).group_by(recent.c.stage)
        )
        return {Stage(stage): float(seconds) for stage, seconds in await self._session.execute(query)}

    async def add_event(self, job_id: str, kind: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write down what happened to the job."""
        await self._session.execute(insert(EventRow).values(job_id=job_id, kind=kind, detail=dict(detail or {})))

    async def events(self, job_id: str, *, after: int = 0, limit: int = 500) -> list[EventRow]:
        """Return the job's events with larger ids, in order."""
        query = (
            select(EventRow).where(EventRow.job_id == job_id, EventRow.id > after).order_by(EventRow.id).limit(limit)
        )
        return list((await self._session.execute(query)).scalars())
