"""A job in a worker's hands: what it is about, how far it is, and whether it must stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Self

from training.jobs.errors import JobStopped, TranscriptsErased
from training.jobs.models import JobRow
from training.jobs.progress import Progress, measure
from training.jobs.states import Phase, Stage


class Parked(BaseException):
    """Raised to let go of a job without ending it: its worker stops, or is not its worker any more.

    A BaseException, so that nothing on the way takes it for a failure, and DBOS does not record it as an outcome.
    """


class StopReason(IntEnum):
    """Why a job must stop; a larger one overrules a smaller one."""

    PAUSED = 1
    PARKED = 2
    CANCELED = 3
    ERASED = 4


@dataclass(kw_only=True)
class Assignment:
    """One job while a worker holds it. `stop` and `tell` may be called from any thread.

    `beginning` names what was made since the job's transcripts were decided on: one that is retried from its beginning
    has another, and finds nothing of before. `start` is the version that its training begins with, `worker_id` who
    holds the job; nobody holds one that has ended.
    """

    job_id: str
    run: int
    tenant: str
    user: str
    adapter: str
    base: str
    settings: Mapping[str, Any]
    phase: Phase
    worker_id: str | None = None
    usual_seconds: Mapping[Stage, float] = field(default_factory=dict)
    transcript_ids: tuple[str, ...] = ()
    beginning: str = ""
    start: str | None = None
    stage: Stage | None = None
    _stopped: StopReason | None = None
    _began: float = 0.0
    _done: int = 0
    _total: int = 0
    _offset: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, row: JobRow, *, usual_seconds: Mapping[Stage, float] | None = None) -> Self:
        """Return the job of a row, about which nothing is decided yet."""
        return cls(
            job_id=row.id,
            run=row.run,
            tenant=row.tenant,
            user=row.user_id,
            adapter=row.adapter,
            base=row.base,
            settings=row.request.get("settings", {}),
            phase=Phase(row.phase),
            worker_id=row.worker_id,
            usual_seconds=usual_seconds or {},
        )

    def know(self, snapshot: Mapping[str, Any]) -> None:
        """Take over what the stage `snapshot` has decided."""
        self.transcript_ids = tuple(snapshot.get("transcript_ids", ()))
        self.beginning = snapshot.get("beginning", "")
        self.start = snapshot.get("start")

    def begin(self, stage: Stage) -> None:
        """Note that a stage begins, or goes on."""
        with self._lock:
            self.stage, self._began = stage, time.monotonic()
            self._done = self._total = self._offset = 0

    def tell(self, done: int, total: int) -> None:
        """Note how far the stage is; the first call says where it went on."""
        with self._lock:
            if self._total == 0:
                self._offset = max(done - 1, 0)
            self._done, self._total = done, total

    def advance(self, done: int, total: int) -> None:
        """Note how far the stage is, unless the job must stop: then rise as `check` does."""
        self.check()
        self.tell(done, total)

    @property
    def seconds(self) -> float:
        """Since the stage began, or went on, here."""
        return time.monotonic() - self._began

    @property
    def progress(self) -> Progress | None:
        """How far the job is; None before its first stage."""
        with self._lock:
            if self.stage is None:
                return None
            found = measure(
                self.stage,
                done=self._done - self._offset,
                total=self._total - self._offset,
                elapsed_seconds=self.seconds,
                usual_seconds=self.usual_seconds,
            )
            return replace(found, done=self._done, total=self._total)

    def stop(self, reason: StopReason) -> None:
        """Have the job stop at its next step."""
        with self._lock:
            self._stopped = max(self._stopped or reason, reason)

    def go_on(self) -> None:
        """Withdraw a pause that was not granted yet."""
        with self._lock:
            if self._stopped is StopReason.PAUSED:
                self._stopped = None

    @property
    def stopped(self) -> StopReason | None:
        """Why the job must stop; None when it may go on."""
        return self._stopped

    def check(self) -> None:
        """Return, or end the work here.

        Raises:
            TranscriptsErased: transcripts that it trains on are gone.
            JobStopped: it was paused, canceled or parked; `stopped` says which.
        """
        if self._stopped is StopReason.ERASED:
            raise TranscriptsErased
        if self._stopped is not None:
            raise JobStopped(f"the job was {self._stopped.name.lower()}")
