"""What `lorry jobs` says of a job."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from lorry.commands.job_words import amount, left, lines, said
from training.jobs.job import Job
from training.jobs.states import Phase, State, Trigger, Wish

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def running(worker_id: str | None, *, eta: float | None = 90.0) -> Job:
    """Return a job in the middle of its training."""
    moments = dict.fromkeys(("submitted_at", "started_at", "updated_at"), NOW)
    given: dict[str, Any] = {"id": "j", "tenant": "default", "user_id": "ann", "adapter": "profile", "base": "base"}
    progress = {"stage": "train", "done": 1, "total": 4, "share": 0.3, "eta_seconds": eta, "stage_eta_seconds": 60.0}
    return Job(
        **given,
        **moments,
        settings={},
        trigger=Trigger.MANUAL,
        why="",
        campaign_id=None,
        review=False,
        priority=0,
        state=State.RUNNING,
        phase=Phase.TRAIN,
        wish=Wish.NONE,
        attempts=0,
        crashes=0,
        worker_id=worker_id,
        progress=progress,
        error=None,
        outcome=None,
        ended_at=None,
        not_before=None,
    )


def test_a_job_whose_worker_has_left_counts_no_time_down() -> None:
    assert (said(running("one")), left(running("one"))) == ("running", "0:01:30")
    assert left(running(None)) == ""
    assert said(running(None)) == "running (no worker holds it; the next one that is free goes on with it)"


def test_before_any_job_was_through_the_time_of_its_stage_is_told() -> None:
    first = running("one", eta=None)
    assert left(first) == "at least 0:01:00"
    assert dict(lines(first, [], None))["progress"] == "train 30 %, at least 0:01:00 left"
    assert left(replace(first, progress={"stage": "train", "eta_seconds": None})) == "", "an earlier release's"


@pytest.mark.parametrize(
    ("tokens", "dollars", "words"),
    [(0, 0.0, "nothing to pay"), (90, 0.0, "90 tokens at no known price"), (90, 0.5, "90 tokens for 0.5000 dollars")],
)
def test_what_has_no_known_price_is_not_called_free(tokens: int, dollars: float, words: str) -> None:
    row = {"is_estimate": False, "input_tokens": tokens, "output_tokens": 0, "dollars": dollars, "device_seconds": 0.0}
    assert amount([row], estimate=False) == f"{words}, no device time"


QUALITY = {
    "examined": 90,
    "kept": 60,
    "sections": [
        {"problem": "near_duplicate", "action": "drop", "count": 4, "dropped": 4},
        {"problem": "platitude", "action": "warn", "count": 3, "dropped": 0},
        {"problem": "imbalance", "action": "warn", "count": 0, "dropped": 0},
    ],
    "nats": {"< 1": 4, "< 2": 50, "< 0.5": 3, "< 4": 0, "< 6": 1, "≥ 6": 2},
    "unscored": 1,
}
DATASET = {"digest": "d", "counts": {"train": 60, "held_out": 24}, "redacted": {"email": 2}, "quality": QUALITY}


def told(dataset: dict[str, Any] | None) -> dict[str, str]:
    """Return the lines about a job's dataset by name."""
    return dict(lines(running("one"), [], dataset)[len(lines(running("one"), [], None)) :])


def test_a_jobs_examples_are_told_by_what_was_found_in_them() -> None:
    assert told(DATASET) == {
        "dataset": "60 of 90 examples to train on, 24 held-out replies",
        "redacted": "email 2",
        "dropped": "near_duplicate 4",
        "to look at": "platitude 3",
        "platitudes": "nats a token under the base: < 0.5 3, < 1 4, < 2 50, < 6 1, ≥ 6 2; 1 too long for it",
    }


def test_what_was_not_asked_or_not_kept_is_not_told_as_good() -> None:
    unasked = told({**DATASET, "quality": {**QUALITY, "sections": [], "nats": {}, "unscored": 0}})
    assert (unasked["dropped"], unasked["platitudes"]) == ("none", "the base model was not asked")
    earlier = {name: value for name, value in DATASET.items() if name != "quality"}
    assert told(earlier) == {"dataset": "60 examples to train on, 24 held-out replies", "redacted": "email 2"}
    assert told(None) == {}


def test_a_job_that_waits_for_its_review_says_how_to_go_on() -> None:
    waiting = replace(running(None), review=True, state=State.PAUSED, progress=None)
    told = "paused (written; `lorry review ann --job j`, then `lorry jobs resume j`)"
    assert said(waiting) == told
    for other in ({"review": False}, {"phase": Phase.PREPARE}, {"progress": running(None).progress}):
        assert said(replace(waiting, **other)) == "paused"
