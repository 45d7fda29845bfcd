"""What a worker says of a job while it works: a line a stage, by the job's id and without anybody's words."""

from __future__ import annotations

from training.jobs.states import STAGES, Phase, State

_ORDER = tuple((phase, stage) for phase in (Phase.PREPARE, Phase.TRAIN) for stage in STAGES[phase])


def stage_done(stage: str, *, seconds: float) -> str:
    """Return that a stage is done, how long it took, and what comes next."""
    return f"{stage} done in {seconds:.1f} s, next: {_next(stage)}"


def run_ended(state: State, *, code: str | None) -> str:
    """Return what a job is now that a run of it has ended; an error by its code, since its text may name somebody.

    Empty for a job that only waits for its next phase: what comes next was said with the stage.
    """
    if state is State.QUEUED:
        return f"will be tried again after {code}" if code else ""
    return f"{state.value} ({code})" if code else state.value


def _next(stage: str) -> str:
    names = [each.value for _, each in _ORDER]
    if stage not in names[:-1]:
        return "nothing"
    (before, _), (phase, following) = _ORDER[names.index(stage) :][:2]
    return following.value if phase is before else f"{following.value}, when a device is free"
