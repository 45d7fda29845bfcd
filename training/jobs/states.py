"""What a training job can be, and what may become of it: the state machine, without a database.

```
queued ──hand over──► starting ──take──► running ──► succeeded | rejected | failed | canceled
  ▲ │                                     │  │
  │ └──pause──► paused ◄──────pause───────┘  └── next phase, or a failure that may pass ──► queued
  └────resume─────┘
```

A job has two phases, which different numbers of workers' slots are for: `prepare` waits for question writers, `train`
keeps a device busy. `rejected` is a training that ended well and whose version the gate keeps from being live.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from training.jobs.errors import IllegalJobTransition


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELED = "canceled"


class Phase(StrEnum):
    """Which kind of slot a job needs next."""

    PREPARE = "prepare"
    TRAIN = "train"


class Wish(StrEnum):
    """What a person asked of a job that a worker holds; the worker grants it at its next step."""

    NONE = "none"
    PAUSE = "pause"
    CANCEL = "cancel"


class Trigger(StrEnum):
    """Why a job was submitted."""

    MANUAL = "manual"
    VOLUME = "volume"
    AGE = "age"
    SCHEDULE = "schedule"
    BASE = "base"
    CAMPAIGN = "campaign"


class Stage(StrEnum):
    """One durable step of a job, in order."""

    SNAPSHOT = "snapshot"
    ESTIMATE = "estimate"
    WRITE = "write"
    DATASET = "dataset"
    TRAIN = "train"
    EVALUATE = "evaluate"
    PUBLISH = "publish"


STAGES: dict[Phase, tuple[Stage, ...]] = {
    Phase.PREPARE: (Stage.SNAPSHOT, Stage.ESTIMATE, Stage.WRITE),
    Phase.TRAIN: (Stage.DATASET, Stage.TRAIN, Stage.EVALUATE, Stage.PUBLISH),
}
HELD = frozenset({State.STARTING, State.RUNNING})
ACTIVE = frozenset({State.QUEUED, State.PAUSED}) | HELD
ENDED = frozenset(State) - ACTIVE
# A training that the gate refused is trained again only when somebody wants it so.
RETRIABLE = frozenset({State.FAILED, State.CANCELED, State.REJECTED})


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a request changes of a job."""

    state: State
    wish: Wish = Wish.NONE


def cancel(standing: Standing) -> Standing:
    """Return what a job becomes that shall end; one that a worker holds ends at that worker's next step.

    Raises:
        IllegalJobTransition: it has ended in another way.
    """
    if standing.state is State.CANCELED:
        return standing
    if standing.state in HELD:
        return Standing(state=standing.state, wish=Wish.CANCEL)
    return Standing(state=_from(standing, {State.QUEUED, State.PAUSED}, State.CANCELED, verb="canceled"))


def pause(standing: Standing) -> Standing:
    """Return what a job becomes that shall wait.

    Raises:
        IllegalJobTransition: it has ended, or is being canceled.
    """
    if standing.state is State.PAUSED or (standing.state in HELD and standing.wish is Wish.PAUSE):
        return standing
    if standing.state in HELD and standing.wish is Wish.NONE:
        return Standing(state=standing.state, wish=Wish.PAUSE)
    if standing.state in HELD:
        raise IllegalJobTransition("the job is being canceled and cannot be paused", field="state")
    return Standing(state=_from(standing, {State.QUEUED}, State.PAUSED, verb="paused"))


def resume(standing: Standing) -> Standing:
    """Return what a paused job becomes that shall go on; a pause that was not granted yet is withdrawn.

    Raises:
        IllegalJobTransition: it is not paused.
    """
    if standing.state in HELD and standing.wish is Wish.PAUSE:
        return Standing(state=standing.state)
    return Standing(state=_from(standing, {State.PAUSED}, State.QUEUED, verb="resumed"))


def retry(standing: Standing) -> Standing:
    """Return what an ended job becomes that shall be tried again; the stages that it finished are kept.

    Raises:
        IllegalJobTransition: it has not ended, or has succeeded.
    """
    return Standing(state=_from(standing, RETRIABLE, State.QUEUED, verb="retried"))


def next_phase(finished: frozenset[Stage]) -> Phase:
    """Return the phase that a job goes on in after these stages."""
    return Phase.TRAIN if finished.issuperset(STAGES[Phase.PREPARE]) else Phase.PREPARE


def _from(standing: Standing, allowed: frozenset[State] | set[State], to: State, *, verb: str) -> State:
    if standing.state not in allowed:
        names = " or ".join(sorted(allowed))
        raise IllegalJobTransition(
            f"a job that is {standing.state.value} cannot be {verb}; only one that is {names} can", field="state"
        )
    return to
