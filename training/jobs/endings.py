"""How a run of a job ends, and what the job becomes by that: plain code, no database.

What a stage raises is sorted here: what another attempt may cure, what is wrong with this user's job for good, and
what somebody asked for. What people asked in the last moment counts as well: a cancellation is never lost, and neither
is a pause or its withdrawal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kit.errors import DatabaseUnavailable, LorryError, StorageUnavailable, problem_code
from kit.workers import backoff
from registry.errors import RegistryUnavailable
from training.errors import LossNotFinite
from training.jobs.settings import WorkerSettings
from training.jobs.states import ENDED, Phase, Stage, State, Wish

_MESSAGE_CHARACTERS = 2000
# What another attempt may cure although its status says that the caller is wrong.
_PASSING = (DatabaseUnavailable, StorageUnavailable, RegistryUnavailable)
# What every attempt ends in, although its status says that the fault is ours: the same inputs give the same loss.
_LASTING = (LossNotFinite,)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a run of a job ends; a run that ends well and is not through goes on in the next phase.

    `kind` is ``goes on``, ``paused``, ``resumed``, ``canceled``, ``erased``, ``again`` (another attempt may cure it) or
    ``failed``.
    """

    kind: str
    error: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form in which it is handed from step to step."""
        return {"kind": self.kind, "error": self.error}


GOES_ON = Ending(kind="goes on")


def ending_of(exc: BaseException, stage: Stage) -> Ending:
    """Return how a run ends whose stage has raised this."""
    lasting = isinstance(exc, LorryError) and exc.status_code < 500 and not isinstance(exc, _PASSING)
    return Ending(kind="failed" if lasting or isinstance(exc, _LASTING) else "again", error=explain(exc, stage))


def explain(exc: BaseException, stage: Stage | None) -> dict[str, Any]:
    """Return an error for people; of what is not ours only the kind, as its text may hold anything."""
    if isinstance(exc, LorryError):
        message = exc.message[:_MESSAGE_CHARACTERS]
        named = {"code": problem_code(type(exc)), "message": message, "field": exc.field}
    elif isinstance(exc, OSError):
        named = {"code": "machine", "message": f"the machine failed: {exc.strerror or type(exc).__name__}"}
    else:
        named = {"code": "internal", "message": f"something broke on our side: {type(exc).__name__}"}
    return {**named, "stage": stage}


def give_up(crashes: int, stage: str | None) -> dict[str, Any]:
    """Return the error of a job under which too many workers have died."""
    where = f" in the stage {stage}" if stage else ""
    return {
        "code": "workers-died",
        "message": f"{crashes} workers have died under this job{where}; it is not tried again unless you retry it",
        "stage": stage,
    }


def changes(
    ending: Ending,
    *,
    wish: Wish,
    attempts: int,
    done: Mapping[Stage, Mapping[str, Any]],
    now: datetime,
    settings: WorkerSettings,
    review: bool = False,
) -> dict[str, Any]:
    """Return the columns of the job's row that a run's end changes.

    Args:
        ending: how the run ended.
        wish: what somebody asks of the job now.
        attempts: failures in a row before this one.
        done: results of the stages that the job has finished.
        now: the database's time.
        settings: how often, and after which pauses, it is tried again.
        review: whether somebody looks at what was written before it is trained on.
    """
    values = _outcome(ending, wish, attempts, done, now, settings)
    if review and ending == GOES_ON and Stage.PUBLISH not in done:
        values |= {"state": State.PAUSED, "progress": None}
    if wish is Wish.CANCEL and Stage.PUBLISH not in done:
        values["state"] = State.CANCELED
    if values["state"] in ENDED:
        values |= {"ended_at": now, "progress": None}
    return {"worker_id": None, "wish": Wish.NONE, **values}


def _outcome(
    ending: Ending,
    wish: Wish,
    attempts: int,
    done: Mapping[Stage, Mapping[str, Any]],
    now: datetime,
    settings: WorkerSettings,
) -> dict[str, Any]:
    goes_on = State.PAUSED if wish is Wish.PAUSE else State.QUEUED
    match ending.kind:
        case "goes on" if Stage.PUBLISH in done:
            outcome = dict(done[Stage.PUBLISH])
            state = State.SUCCEEDED if outcome["passed"] else State.REJECTED
            return {"state": state, "outcome": outcome, "error": None}
        case "goes on":
            return {"state": goes_on, "phase": Phase.TRAIN, "attempts": 0, "error": None}
        case "paused" | "resumed":
            return {"state": goes_on}
        case "canceled":
            return {"state": State.CANCELED}
        case "erased":
            return {"state": State.CANCELED, "error": ending.error}
        case "again" if attempts + 1 < settings.training_attempts:
            wait = backoff(
                attempts + 1,
                base_seconds=settings.training_backoff_seconds,
                max_seconds=settings.training_max_backoff_seconds,
            )
            return {"state": goes_on, "error": ending.error, "attempts": attempts + 1, "not_before": now + wait}
        case _:
            return {"state": State.FAILED, "attempts": attempts + 1, "error": ending.error}


def event_kind(ending: Ending, state: State, *, review: bool = False) -> str:
    """Return what a run's end is called in the job's events."""
    if review and ending == GOES_ON and state is State.PAUSED:
        return "waits for review"
    if state is not State.QUEUED:
        return state.value
    return {"again": "will be tried again", "goes on": "prepared"}.get(ending.kind, "resumed")
