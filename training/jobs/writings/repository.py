"""The SQL of what question writers were asked and have answered. Nothing here commits; `None` = there is none."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from training.jobs.models import AnswerRow, WritingRow
from training.writers.state import WriterState
from training.writers.writer import Written


class WritingRepository:
    """Reads and writes `training_writing` and `training_answer`, which hold content, through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def state(self, job_id: str) -> WriterState | None:
        """Return how far the job's writer is."""
        row = await self._row(job_id)
        return WriterState.from_json(row.state) if row and row.state else None

    async def is_given_up(self, job_id: str) -> bool:
        """Say whether what was begun for the job must not be gone on with."""
        row = await self._row(job_id)
        return row is not None and row.given_up

    async def written(self, job_id: str) -> Written | None:
        """Return what the job's writer has written, once it has written everything."""
        row = await self._row(job_id)
        return Written.from_json(row.written) if row and row.written else None

    async def keep(self, job_id: str, **values: Any) -> None:
        """Keep a writer's `state` or what it has `written`, as JSON; what is not named stays as it was."""
        statement = insert(WritingRow).values(job_id=job_id, **values)
        await self._session.execute(statement.on_conflict_do_update(index_elements=["job_id"], set_=values))

    async def keep_answer(self, job_id: str, request: str, answer: bytes) -> None:
        """Keep what was answered to one request, also before the writer has a state."""
        await self._session.execute(insert(WritingRow).values(job_id=job_id).on_conflict_do_nothing())
        statement = insert(AnswerRow).values(job_id=job_id, request=request, answer=answer)
        await self._session.execute(
            statement.on_conflict_do_update(index_elements=["job_id", "request"], set_={"answer": answer})
        )

    async def answer(self, job_id: str, request: str) -> bytes | None:
        """Return what was answered to one request of the job's."""
        query = select(AnswerRow.answer).where(AnswerRow.job_id == job_id, AnswerRow.request == request)
        return (await self._session.execute(query)).scalar_one_or_none()

    async def forget_answers(self, job_id: str) -> None:
        """Remove what was answered to the job's requests."""
        await self._session.execute(delete(AnswerRow).where(AnswerRow.job_id == job_id))

    async def give_up(self, job_id: str) -> None:
        """Have the job's writer begin anew, once its service keeps nothing of before; every word of it goes now."""
        await self.forget_content(job_id)
        await self._session.execute(update(WritingRow).where(WritingRow.job_id == job_id).values(given_up=True))

    async def claimed_batches(self, *, except_job: str = "") -> set[str]:
        """Return the ids of all batches that jobs' writers, one job's aside, know to be theirs."""
        ids = func.jsonb_array_elements_text(WritingRow.state["batches"])
        query = select(ids).where(WritingRow.job_id != except_job, WritingRow.state.is_not(None))
        return set((await self._session.execute(query)).scalars())

    async def forget(self, job_id: str) -> None:
        """Remove what the job's question writer has written."""
        await self._session.execute(delete(WritingRow).where(WritingRow.job_id == job_id))

    async def forget_content(self, job_id: str) -> None:
        """Remove what the job's question writer has written; how far its work is holds no word and stays."""
        await self.forget_answers(job_id)
        await self._session.execute(update(WritingRow).where(WritingRow.job_id == job_id).values(written=None))

    async def _row(self, job_id: str) -> WritingRow | None:
        return await self._session.get(WritingRow, job_id, populate_existing=True)
