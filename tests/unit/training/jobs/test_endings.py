"""How runs end: what is tried again, what is not, and what people asked in the last moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from kit.errors import DatabaseUnavailable
from registry.errors import BaseModelMismatch, RegistryUnavailable
from training.errors import DatasetTooSmall, DiskFull, LossNotFinite, OutOfMemory, WriterRefused, WriterUnavailable
from training.jobs.endings import GOES_ON, Ending, changes, ending_of, event_kind
from training.jobs.settings import WorkerSettings
from training.jobs.states import Phase, Stage, State, Wish

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = WorkerSettings(
    database_url="postgresql+asyncpg://nobody@nowhere/none",
    registry_url="http://nowhere",
    registry_token=SecretStr("a-token-for-nothing"),
    training_attempts=3,
    training_backoff_seconds=10,
)
ENDINGS = ("goes on", "paused", "resumed", "again", "failed", "erased", "canceled")


def after(
    kind: str, *, wish: Wish = Wish.NONE, attempts: int = 0, done: Any = (), review: bool = False
) -> dict[str, Any]:
    ending = Ending(kind=kind, error={"code": "something"} if kind in {"again", "failed", "erased"} else None)
    return changes(ending, wish=wish, attempts=attempts, done=dict(done), now=NOW, settings=SETTINGS, review=review)


@pytest.mark.parametrize("exc", [OutOfMemory, DiskFull, RegistryUnavailable, DatabaseUnavailable, WriterUnavailable])
def test_what_may_pass_is_tried_again(exc: type[Exception]) -> None:
    ending = ending_of(exc("so it is"), Stage.TRAIN)
    assert ending.kind == "again"
    assert ending.error is not None
    assert (ending.error["message"], ending.error["stage"]) == ("so it is", Stage.TRAIN)


@pytest.mark.parametrize("exc", [DatasetTooSmall, LossNotFinite, WriterRefused, BaseModelMismatch])
def test_what_every_attempt_would_end_in_fails_at_once(exc: type[Exception]) -> None:
    assert ending_of(exc("so it is"), Stage.TRAIN).kind == "failed"


@pytest.mark.parametrize("exc", [OSError(5, "Input/output error"), ValueError("a word that somebody said"), KeyError()])
def test_of_what_is_not_ours_only_the_kind_is_told(exc: Exception) -> None:
    ending = ending_of(exc, Stage.TRAIN)
    assert ending.kind == "again"
    assert "somebody said" not in str(ending.error)


def test_a_job_that_is_reviewed_waits_between_its_phases_and_nowhere_else() -> None:
    for wish in (Wish.NONE, Wish.PAUSE):
        waits = after("goes on", review=True, wish=wish)
        assert (waits["state"], waits["phase"], waits["progress"]) == (State.PAUSED, Phase.TRAIN, None)
        assert event_kind(GOES_ON, waits["state"], review=True) == "waits for review"
    assert after("goes on", review=True, wish=Wish.CANCEL)["state"] is State.CANCELED
    assert after("goes on", review=True, done={Stage.PUBLISH: {"passed": True}})["state"] is State.SUCCEEDED
    for kind in ENDINGS[1:]:
        assert after(kind, review=True) == after(kind)
        ending = Ending(kind=kind)
        for state in State:
            assert event_kind(ending, state, review=True) == event_kind(ending, state)


def test_a_run_goes_on_in_the_next_phase_and_ends_with_its_version() -> None:
    assert after("goes on") == {
        "worker_id": None, "wish": Wish.NONE, "state": State.QUEUED, "phase": Phase.TRAIN, "attempts": 0, "error": None,
    }  # fmt: skip
    for passed, state in ((True, State.SUCCEEDED), (False, State.REJECTED)):
        ended = after("goes on", done={Stage.PUBLISH: {"passed": passed}})
        assert (ended["state"], ended["outcome"], ended["ended_at"]) == (state, {"passed": passed}, NOW)


def test_attempts_come_after_growing_pauses_until_they_are_used_up() -> None:
    for attempts, seconds in ((0, 10), (1, 20)):
        again = after("again", attempts=attempts)
        assert (again["state"], again["attempts"]) == (State.QUEUED, attempts + 1)
        assert again["not_before"] == NOW + timedelta(seconds=seconds)
        assert "ended_at" not in again
    given_up = after("again", attempts=2)
    assert (given_up["state"], given_up["attempts"], given_up["ended_at"]) == (State.FAILED, 3, NOW)


@pytest.mark.parametrize("kind", ENDINGS)
def test_a_cancellation_in_the_last_moment_counts_however_the_run_ends(kind: str) -> None:
    ended = after(kind, wish=Wish.CANCEL)
    assert (ended["state"], ended["ended_at"], ended["wish"]) == (State.CANCELED, NOW, Wish.NONE)


def test_a_cancellation_comes_too_late_for_a_version() -> None:
    done = {Stage.PUBLISH: {"passed": True}}
    assert after("goes on", wish=Wish.CANCEL, done=done)["state"] is State.SUCCEEDED


@pytest.mark.parametrize("kind", ["goes on", "paused", "resumed", "again"])
def test_a_pause_or_its_withdrawal_in_the_last_moment_counts(kind: str) -> None:
    assert after(kind, wish=Wish.PAUSE)["state"] is State.PAUSED
    assert after(kind, wish=Wish.NONE)["state"] is State.QUEUED


def test_an_end_is_called_by_what_happened() -> None:
    assert event_kind(GOES_ON, State.QUEUED) == "prepared"
    assert event_kind(Ending(kind="again"), State.QUEUED) == "will be tried again"
    assert event_kind(Ending(kind="paused"), State.QUEUED) == "resumed"
    assert event_kind(Ending(kind="again"), State.FAILED) == "failed"
