from __future__ import annotations

import pytest

from training.jobs.states import Stage, State
from training.jobs.words import run_ended, stage_done


@pytest.mark.parametrize(
    ("stage", "following"),
    [
        (Stage.SNAPSHOT, "estimate"),
        (Stage.WRITE, "dataset, when a device is free"),
        (Stage.TRAIN, "evaluate"),
        (Stage.PUBLISH, "nothing"),
    ],
)
def test_a_stage_that_is_done_says_what_comes_next(stage: Stage, following: str) -> None:
    assert stage_done(stage, seconds=3.21) == f"{stage.value} done in 3.2 s, next: {following}"


def test_a_run_that_ended_says_why_by_a_code() -> None:
    assert run_ended(State.SUCCEEDED, code=None) == "succeeded"
    assert run_ended(State.FAILED, code="dataset-too-small") == "failed (dataset-too-small)"
    assert run_ended(State.QUEUED, code="writer-unavailable") == "will be tried again after writer-unavailable"
    assert run_ended(State.QUEUED, code=None) == ""
