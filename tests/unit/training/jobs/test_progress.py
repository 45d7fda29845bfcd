"""How far a job is, and when it will be done; and that an assignment tells so from where it went on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from training.jobs.assignment import Assignment, StopReason
from training.jobs.campaigns.campaigns import turns_due
from training.jobs.errors import JobStopped, TranscriptsErased
from training.jobs.progress import measure
from training.jobs.states import Phase, Stage

USUAL = dict.fromkeys(Stage, 10.0) | {Stage.TRAIN: 100.0}


def test_the_rest_of_a_stage_follows_from_its_pace_and_the_others_from_history() -> None:
    found = measure(Stage.TRAIN, done=25, total=100, elapsed_seconds=50, usual_seconds=USUAL)
    assert found.eta_seconds == 150 + 10 + 10


def test_without_history_of_later_stages_no_time_is_promised() -> None:
    assert measure(Stage.TRAIN, done=25, total=100, elapsed_seconds=50, usual_seconds={}).eta_seconds is None


def test_of_the_first_job_of_all_the_stages_end_is_told_by_its_pace() -> None:
    assert measure(Stage.TRAIN, done=25, total=100, elapsed_seconds=50, usual_seconds={}).stage_eta_seconds == 150
    assert measure(Stage.TRAIN, done=25, total=100, elapsed_seconds=50, usual_seconds=USUAL).stage_eta_seconds == 150
    assert measure(Stage.TRAIN, done=0, total=100, elapsed_seconds=50, usual_seconds={}).stage_eta_seconds is None


def test_a_stage_that_has_not_told_a_step_takes_as_long_as_usual() -> None:
    assert measure(Stage.PUBLISH, done=0, total=0, elapsed_seconds=4, usual_seconds=USUAL).eta_seconds == 6
    assert measure(Stage.PUBLISH, done=0, total=0, elapsed_seconds=99, usual_seconds=USUAL).eta_seconds == 0


def test_the_share_never_falls_along_the_stages() -> None:
    shares = [
        measure(stage, done=done, total=4, elapsed_seconds=1, usual_seconds=usual).share
        for usual in (USUAL,)
        for stage in Stage
        for done in range(5)
    ]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def assignment() -> Assignment:
    return Assignment(
        job_id="j", run=1, tenant="t", user="u", adapter="profile", base="b", settings={}, phase=Phase.TRAIN,
        usual_seconds=USUAL,
    )  # fmt: skip


def test_a_training_that_went_on_at_step_90_does_not_count_90_steps_as_done_just_now() -> None:
    job = assignment()
    job.begin(Stage.TRAIN)
    job._began -= 10.0
    job.tell(91, 100)
    progress = job.progress
    assert progress is not None
    assert (progress.done, progress.total) == (91, 100)
    assert progress.eta_seconds == pytest.approx(10.0 * 9 + 20, abs=1.0)


def test_a_graver_reason_to_stop_overrules_a_lighter_one_and_never_the_reverse() -> None:
    job = assignment()
    job.check()
    job.stop(StopReason.PAUSED)
    with pytest.raises(JobStopped):
        job.check()
    job.stop(StopReason.ERASED)
    job.stop(StopReason.PAUSED)
    with pytest.raises(TranscriptsErased):
        job.check()
    job.go_on()
    assert job.stopped is StopReason.ERASED


def test_a_job_that_must_stop_advances_no_further() -> None:
    job = assignment()
    job.begin(Stage.DATASET)
    job.advance(3, 10)
    job.stop(StopReason.PAUSED)
    with pytest.raises(JobStopped):
        job.advance(4, 10)
    assert job.progress is not None
    assert (job.progress.done, job.progress.total) == (3, 10)


def test_a_pause_can_be_withdrawn() -> None:
    job = assignment()
    job.stop(StopReason.PAUSED)
    job.go_on()
    job.check()


def test_a_campaign_keeps_to_its_rate_and_does_not_make_up_for_lost_time() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert turns_due(per_hour=60, last=None, now=now) == 1
    assert turns_due(per_hour=60, last=now - timedelta(seconds=59), now=now) == 0
    assert turns_due(per_hour=60, last=now - timedelta(seconds=60), now=now) == 1
    assert turns_due(per_hour=60, last=now - timedelta(days=3), now=now) == 2, "two minutes' worth at most"
    assert turns_due(per_hour=0.5, last=now - timedelta(hours=2), now=now) == 1
