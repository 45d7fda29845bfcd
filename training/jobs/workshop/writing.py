"""The stages `estimate` and `write`, and what is left at a question writer's when a job has ended."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from kit.database import Database
from training.errors import ConfigInvalid, WriterError, WriterFailed, WriterStale, WriterUnavailable
from training.jobs.assignment import Assignment
from training.jobs.costs.repository import CostRepository, cost_row, writing_cost
from training.jobs.holding import holding
from training.jobs.quotas.quotas import promise
from training.jobs.repository import JobRepository
from training.jobs.workshop.materials import Materials
from training.jobs.writings.repository import WritingRepository
from training.jobs.writings.spool import WritingSpool
from training.writers.cost import Cost
from training.writers.factory import make_writer
from training.writers.settings import WriterSettings
from training.writers.spool import Spool
from training.writers.state import WriterState
from training.writers.writer import QuestionWriter, Written

_WAIT_SECONDS = 0.25  # between two looks at whether a job that waits must stop
_DISCARD_STEPS = 20
_log = logging.getLogger(__name__)


class Writing:
    """Has questions written, and nothing paid twice.

    The writer's state is kept before and after each of its steps, and each answer before the state that counts it.
    """

    def __init__(self, writers: WriterSettings, *, database: Database, materials: Materials) -> None:
        self._writers = writers
        self._database = database
        self._materials = materials

    async def estimate(self, job: Assignment) -> dict[str, Any]:
        """Reckon what the job will cost, and refuse what the tenant's quota does not allow."""
        prepared = await self._materials.prepared(job)
        writer = await self._writer(job)
        cost = await writer.estimate(prepared.kept)
        steps = self._materials.config(job).training.steps
        async with self._database.transaction() as session:
            costs, writings = CostRepository(session), WritingRepository(session)
            anew = await writings.state(job.job_id) is None or await writings.is_given_up(job.job_id)
            month = await promise(session, job, cost, anew=anew)
            for kind, seconds in (await costs.usual_device_seconds(job.base, steps=steps)).items():
                await costs.keep(cost_row(job, kind, is_estimate=True, device_seconds=seconds))
        month.require(cost)
        return {"writer": writer.name, "cost": cost.to_json()}

    async def write(self, job: Assignment) -> dict[str, Any]:
        """Have questions written; what was written before is not written again."""
        async with self._database.reading() as session:
            writings = WritingRepository(session)
            written, state = await writings.written(job.job_id), await writings.state(job.job_id)
            given_up = await writings.is_given_up(job.job_id)
        if written is not None:
            return _result(written)
        prepared = await self._materials.prepared(job)
        writer = await self._writer(job)
        if given_up or (state is not None and state.phase in {"discarding", "discarded"}):
            await self._finish_discarding(job, writer, state)
            state = None
        if state is None:
            try:
                state = await writer.begin(prepared.kept)
            except WriterError as exc:
                await self._keep_spent(job, exc)
                raise
            await self._keep(job, state)
        try:
            while not state.written:
                job.advance(*state.progress)
                if state.phase == "submitting":
                    writer = await self._writer(job)  # which batches are others' is known anew
                state = await writer.poll(state, prepared.kept)
                await self._keep(job, state)
                if not state.written:
                    await _wait(job, state.wait_seconds)
            written = await writer.collect(state, prepared.kept)
        except (WriterFailed, WriterStale):  # asked again, it would say the same: the next attempt begins anew
            await self._give_up(job)
            await self._discard(job, writer, state)
            raise
        async with holding(self._database, job) as session:
            await WritingRepository(session).keep(job.job_id, written=written.to_json())
            await CostRepository(session).keep(writing_cost(job, written.cost, is_estimate=False))
        await self._discard(job, writer, state)
        return _result(written)

    async def clear(self, job: Assignment) -> bool:
        """Delete what the writer's service keeps of a job that has ended; False when that is not done yet."""
        try:
            async with self._database.reading() as session:
                state = await WritingRepository(session).state(job.job_id)
            if state is None or state.discarded:
                return True
            writer = await self._make_writer(job)  # its answers are gone: see `forget_content`
            for _ in range(_DISCARD_STEPS):
                state = await writer.discard(state)
                async with self._database.transaction() as session:
                    await WritingRepository(session).keep(job.job_id, state=state.to_json())
                if state.discarded or state.wait_seconds > 1.0:
                    break
                await asyncio.sleep(state.wait_seconds)
        except (WriterError, ConfigInvalid) as exc:  # away, or a key that is no longer set: tried again later
            _log.warning("a question writer's service still keeps a job's results: %s", type(exc).__name__)
            return False
        return state.discarded

    async def forget_content(self, job_id: str) -> None:
        """Remove every word that was written for a job; what its service is yet to delete stays known by its ids."""
        async with self._database.transaction() as session:
            await WritingRepository(session).forget_content(job_id)

    async def forget(self, job_id: str) -> None:
        """Remove what was written for a job."""
        async with self._database.transaction() as session:
            await WritingRepository(session).forget(job_id)

    async def _writer(self, job: Assignment) -> QuestionWriter:
        return await self._make_writer(job, spool=WritingSpool(self._database, job))

    async def _make_writer(self, job: Assignment, *, spool: Spool | None = None) -> QuestionWriter:
        async with self._database.reading() as session:
            claimed = await WritingRepository(session).claimed_batches(except_job=job.job_id)
        return make_writer(
            self._writers,
            self._materials.config(job).dataset,
            spool=spool,
            redactor=None,  # `prepared` has redacted already
            key=job.job_id,
            claimed=claimed,
        )

    async def _keep(self, job: Assignment, state: WriterState) -> None:
        async with holding(self._database, job) as session:
            await WritingRepository(session).keep(job.job_id, state=state.to_json())
            if state.phase in {"discarding", "discarded"}:  # that is free, and what it cost may be set aside by now
                return
            # A day's wait outlives many workers, and kills none.
            await JobRepository(session).update(job.job_id, {"crashes": 0})
            if state.spent.usage.requests:
                await CostRepository(session).keep(writing_cost(job, state.spent, is_estimate=False))

    async def _keep_spent(self, job: Assignment, failure: WriterError) -> None:
        """Write down what useless samples cost, beside what other runs cost: a retry pays for its own."""
        if (spent := failure.details.get("spent")) is not None:
            async with self._database.transaction() as session:
                costs = CostRepository(session)
                await costs.keep(writing_cost(job, Cost.from_json(spent), is_estimate=False))
                await costs.set_aside(job.job_id, run=job.run, kind="write")

    async def _give_up(self, job: Assignment) -> None:
        """Have the next attempt begin anew; what this writing cost stands beside what that one will."""
        async with holding(self._database, job) as session:
            await WritingRepository(session).give_up(job.job_id)
            await CostRepository(session).set_aside(job.job_id, run=job.run, kind="write")

    async def _finish_discarding(self, job: Assignment, writer: QuestionWriter, state: WriterState | None) -> None:
        """Have everything of an earlier run deleted: its batch has the names that the next one's will have."""
        while state is not None and not state.discarded:
            job.check()
            state = await writer.discard(state)
            await self._keep(job, state)
            await _wait(job, state.wait_seconds)
        async with holding(self._database, job) as session:
            await WritingRepository(session).forget(job.job_id)

    async def _discard(self, job: Assignment, writer: QuestionWriter, state: WriterState) -> None:
        """Delete what the service keeps; what it does not delete now is deleted by `clear`, later."""
        try:
            for _ in range(_DISCARD_STEPS):
                if state.discarded:
                    return
                state = await writer.discard(state)
                await self._keep(job, state)
                if not state.discarded:
                    await _wait(job, min(state.wait_seconds, 5.0))
        except WriterUnavailable:
            return


async def _wait(job: Assignment, seconds: float) -> None:
    """Wait, but notice within a moment when the job must stop."""
    end = asyncio.get_running_loop().time() + seconds
    while (left := end - asyncio.get_running_loop().time()) > 0:
        job.check()
        await asyncio.sleep(min(left, _WAIT_SECONDS))


def _result(written: Written) -> dict[str, Any]:
    return {
        "writer": written.writer,
        "examples": len(written.examples),
        "dropped": {each.reason: each.count for each in written.dropped},
        "cost": written.cost.to_json(),
    }
