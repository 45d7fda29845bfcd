"""The only file that knows DBOS: a phase of a job as a durable workflow, and the queues that workers take them from.

A workflow's id is ``<job>.<run>``, its arguments are ids, and the outcome of each of its steps is a few words: nothing
that anybody said is ever in DBOS's tables. What DBOS gives is an exactly-once hand-over to one of many workers, steps
that are not repeated after a kill, and the recovery of what a dead worker held.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from training.jobs.assignment import Parked
from training.jobs.desk import Desk, stages_of
from training.jobs.endings import GOES_ON, Ending
from training.jobs.pace import Pace
from training.jobs.settings import WorkerSettings
from training.jobs.states import Phase, Stage

T = TypeVar("T")
_APPLICATION: Final = "lorry-training"
# Part of every workflow: only workers of the same one continue it. Change it when the stages' order changes.
_VERSION: Final = "lorry-training-1"
_QUEUES: Final = {Phase.PREPARE: "lorry-prepare", Phase.TRAIN: "lorry-train"}
_WORKFLOW: Final = "lorry-phase"
_MAX_RECOVERIES: Final = 1_000_000  # how often a job may take its worker down with it is counted by ourselves
_FORGOTTEN_AT_ONCE: Final = 1000
_QUIET_SECONDS: Final = 30.0
_log = logging.getLogger(__name__)


class _Hands:
    """What the workflow function reaches the worker by: DBOS registers plain functions once per process."""

    desk: Desk | None = None
    loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def run(cls, work: Callable[[Desk], Coroutine[Any, Any, T]]) -> T:
        """Run something on the worker's own event loop and wait for it in this thread."""
        if cls.desk is None or cls.loop is None or cls.loop.is_closed():
            raise Parked
        future = asyncio.run_coroutine_threadsafe(_unparked(work(cls.desk)), cls.loop)
        outcome = future.result()
        if isinstance(outcome, Parked):
            raise outcome
        return outcome


async def _unparked(work: Coroutine[Any, Any, T]) -> T | Parked:
    """Hand `Parked` over as a value: a task that ends with a BaseException would be reported as lost."""
    try:
        return await work
    except Parked as exc:
        return exc
    except asyncio.CancelledError:
        return Parked()


@DBOS.workflow(name=_WORKFLOW, max_recovery_attempts=_MAX_RECOVERIES)
def _run_phase(job_id: str, run: int, phase: str) -> str:
    job = _Hands.run(lambda desk: desk.take(job_id, run))
    if job is None:
        return "over"
    try:
        ending = GOES_ON.to_json()
        for stage in stages_of(phase):
            ending = DBOS.run_step({"name": stage.value}, _perform, job_id, stage.value)
            if ending != GOES_ON.to_json():
                break
        DBOS.run_step({"name": "settle"}, _settle, job_id, ending)
        return str(ending["kind"])
    finally:
        if _Hands.desk is not None:
            _Hands.desk.let_go(job)


def _perform(job_id: str, stage: str) -> dict[str, Any]:
    return _Hands.run(lambda desk: desk.perform(desk.assignments[job_id], Stage(stage))).to_json()


def _settle(job_id: str, ending: dict[str, Any]) -> None:
    _Hands.run(lambda desk: desk.settle(desk.assignments[job_id], Ending(**ending)))


class DurableQueue:
    """The jobs that were handed over, as one worker sees them; open between `launch` and `close`."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._client: DBOSClient | None = None
        # DBOS holds a lock in an open transaction for one such pause, and PostgreSQL ends those that take too long.
        self._pace = Pace(quiet_seconds=min(_QUIET_SECONDS, _idle_transaction_seconds(settings) / 2))

    @property
    def is_open(self) -> bool:
        """Whether jobs are taken, and what dead workers held can be recovered."""
        return self._client is not None

    async def launch(self, desk: Desk) -> None:
        """Take jobs from now on, and continue those that this worker's id held when its last process ended.

        Raises:
            Exception: whatever DBOS raises when the database cannot be reached.
        """
        _Hands.desk, _Hands.loop = desk, asyncio.get_running_loop()
        await asyncio.to_thread(self._launch)

    def _launch(self) -> None:
        url = system_url(self._settings.database_url)
        config: DBOSConfig = {
            "name": _APPLICATION,
            "system_database_url": url,
            "executor_id": self._settings.worker_id,
            "application_version": _VERSION,
            "log_level": "WARNING",
            "sys_db_idle_transaction_timeout_sec": _idle_transaction_seconds(self._settings),
            "sys_db_pool_size": max(4, min(20, self._settings.training_prepare_slots)),
        }
        instance = DBOS(config=config)
        DBOS.listen_queues([_QUEUES[phase] for phase in self._phases()])
        DBOS.launch()
        for stop in (*instance.background_thread_stop_events, instance._background_jobs_stop_event):
            self._pace.slow(stop)
        slots = {Phase.PREPARE: self._settings.training_prepare_slots, Phase.TRAIN: 1}
        for phase in self._phases():
            DBOS.register_queue(
                _QUEUES[phase],
                worker_concurrency=slots[phase],
                polling_interval_sec=self._settings.training_poll_seconds,
                on_conflict="always_update",
            )
        self._client = DBOSClient(system_database_url=url, application_name=_APPLICATION, lazy=True)

    def _phases(self) -> list[Phase]:
        phases = [Phase.PREPARE] if self._settings.training_prepare_slots else []
        return [*phases, *([Phase.TRAIN] if self._settings.training_trains else [])]

    async def hand_over(self, session: AsyncSession, *, job_id: str, run: int, phase: Phase) -> None:
        """Put a run of a job into its phase's queue, in the caller's transaction: both happen, or neither."""
        assert self._client is not None
        client = self._client
        options: EnqueueOptions = {
            "workflow_name": _WORKFLOW,
            "queue_name": _QUEUES[phase],
            "workflow_id": f"{job_id}.{run}",
            "app_version": _VERSION,
        }
        await session.run_sync(
            lambda sync: client.enqueue_in_transaction(sync.connection(), options, job_id, run, phase.value)
        )

    def expect(self, *, something: bool) -> None:
        """Say whether a run waits that a worker could take: DBOS looks for one at once then, and seldom otherwise.

        By itself it asks the database twenty times a second, whether there is anything to do or not.
        """
        if something:
            self._pace.wake()
        else:
            self._pace.calm()

    async def recover(self, worker_id: str) -> None:
        """Put what a dead worker held back into its queues; what is running again already is left alone."""
        await asyncio.to_thread(DBOS._recover_pending_workflows, [worker_id])
        self._pace.wake()

    async def holders(self) -> set[str]:
        """Return the ids of workers that hold a run, as far as DBOS knows."""
        found = await asyncio.to_thread(DBOS.list_workflows, status=["PENDING"], load_input=False, load_output=False)
        return {each.executor_id for each in found if each.executor_id is not None}

    async def lost(self, runs: Sequence[str]) -> set[str]:
        """Return those of the runs, ``<job>.<run>``, that DBOS does not have in a queue or in a worker's hands."""
        found = await asyncio.to_thread(
            DBOS.list_workflows,
            workflow_ids=list(runs),
            status=["ENQUEUED", "PENDING"],
            load_input=False,
            load_output=False,
        )
        return set(runs) - {each.workflow_id for each in found}

    async def forget(self, *, older_than_days: float) -> None:
        """Remove DBOS's own records of runs that ended so long ago; nothing asks for them any more."""
        before = (datetime.now(UTC) - timedelta(days=older_than_days)).isoformat()

        def forget() -> None:
            ended = ["SUCCESS", "ERROR", "CANCELLED"]
            found = DBOS.list_workflows(
                status=ended, completed_before=before, limit=_FORGOTTEN_AT_ONCE, load_input=False, load_output=False
            )
            if found:
                DBOS.delete_workflows([each.workflow_id for each in found])

        await asyncio.to_thread(forget)

    async def close(self) -> None:
        """Take no more jobs. What runs must have been parked; its workflows stay to be continued."""
        if self._client is not None:
            await asyncio.to_thread(self._client.destroy)
            self._client = None
        await asyncio.to_thread(DBOS.destroy, workflow_completion_timeout_sec=0)
        _Hands.desk = _Hands.loop = None


def _idle_transaction_seconds(settings: WorkerSettings) -> float:
    return max(settings.training_lease_seconds, 5.0)


def delete_runs(database_url: str, run_ids: Sequence[str]) -> None:
    """Remove all that DBOS keeps of these runs: arguments, outcomes of their steps, errors. It takes a blocking call.

    A database in which no worker ever ran has none.
    """
    if not run_ids:
        return
    client = DBOSClient(system_database_url=system_url(database_url), application_name=_APPLICATION)
    try:
        for start in range(0, len(run_ids), _FORGOTTEN_AT_ONCE):
            client.delete_workflows(list(run_ids[start : start + _FORGOTTEN_AT_ONCE]))
    finally:
        client.destroy()


def system_url(database_url: str) -> str:
    """Return the same database's address as psycopg, which DBOS uses, writes it."""
    return make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
