"""The SQL of finished trainings that are not published yet. Nothing here commits; `None` = there is none."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, exists, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from training.jobs.models import FinishedPartRow, FinishedRow


class FinishedRepository:
    """Reads and writes `training_finished` and its parts, which hold weights, through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def files(self, job_id: str) -> dict[str, str] | None:
        """Return the SHA-256 of each file of the job's finished training, by name; None unless it is there whole."""
        query = select(FinishedRow.files).where(FinishedRow.job_id == job_id)
        return (await self._session.execute(query)).scalar_one_or_none()

    async def begin(self, job_id: str) -> None:
        """Begin to keep a job's finished training, in the place of one that was kept or begun before."""
        statement = insert(FinishedRow).values(job_id=job_id)
        await self._session.execute(statement.on_conflict_do_update(index_elements=["job_id"], set_={"files": None}))
        await self._session.execute(delete(FinishedPartRow).where(FinishedPartRow.job_id == job_id))

    async def add_part(self, job_id: str, file: str, number: int, data: bytes) -> None:
        """Add a part of a file, the first is number 0; nothing where what was begun is forgotten by now."""
        key = {"job_id": job_id, "file": file, "number": number}
        begun = exists().where(FinishedRow.job_id == job_id)
        row = FinishedPartRow.__table__.c
        part = select(*(literal(value, row[name].type) for name, value in {**key, "data": data}.items())).where(begun)
        statement = insert(FinishedPartRow).from_select([*key, "data"], part)
        await self._session.execute(statement.on_conflict_do_update(index_elements=[*key], set_={"data": data}))

    async def complete(self, job_id: str, files: Mapping[str, str]) -> None:
        """Note that every part of these files is there: name to SHA-256."""
        whole = update(FinishedRow).where(FinishedRow.job_id == job_id).values(files=dict(files))
        await self._session.execute(whole)

    async def part(self, job_id: str, file: str, number: int) -> bytes | None:
        """Return one part of a file; None after the last."""
        query = select(FinishedPartRow.data).where(
            FinishedPartRow.job_id == job_id, FinishedPartRow.file == file, FinishedPartRow.number == number
        )
        return (await self._session.execute(query)).scalar_one_or_none()

    async def forget(self, job_id: str) -> None:
        """Remove what is kept of a job's finished training."""
        await self._session.execute(delete(FinishedRow).where(FinishedRow.job_id == job_id))
