"""Who is due for a training, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from training.jobs.errors import JobRequestInvalid
from training.jobs.staleness import Due, Knowledge, Rules, due
from training.jobs.states import Trigger

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)  # a Wednesday
RULES = Rules(enabled=True, min_words=100, new_words=500, new_share=0.2, max_age_days=30)
TRAINED = Knowledge(words=1000, trained_words=1000, trained_at=NOW - timedelta(days=1), trained_base="one")


def found(known: Knowledge, rules: Rules = RULES) -> Due | None:
    return due(known, rules, now=NOW)


def trigger(known: Knowledge, **changes: Any) -> Trigger | None:
    reason = found(known, replace(RULES, **changes))
    return reason.trigger if reason else None


def test_without_rules_nobody_is_due() -> None:
    assert due(Knowledge(words=10_000), Rules(), now=NOW) is None


def test_somebody_with_enough_words_and_no_adapter_is_due() -> None:
    assert found(Knowledge(words=99)) is None
    assert found(Knowledge(words=100)) == Due(trigger=Trigger.VOLUME, reason="100 own words and no adapter")


def test_nobody_without_words_is_due_whatever_the_rules_say() -> None:
    assert found(Knowledge(words=0), replace(RULES, min_words=0)) is None


@pytest.mark.parametrize(("words", "is_due"), [(1499, False), (1500, True)])
def test_enough_new_words_are_a_reason(words: int, is_due: bool) -> None:
    assert (trigger(replace(TRAINED, words=words)) is Trigger.VOLUME) is is_due


def test_new_words_count_as_a_share_of_many_old_ones() -> None:
    much = replace(TRAINED, trained_words=100_000, words=110_000)
    assert found(much) is None
    assert trigger(replace(much, words=120_000)) is Trigger.VOLUME
    assert trigger(replace(much, words=120_000), new_words=None) is None


def test_age_is_a_reason_only_with_something_new() -> None:
    old = replace(TRAINED, trained_at=NOW - timedelta(days=40))
    assert found(old) is None
    assert trigger(replace(old, words=1001)) is Trigger.AGE
    assert trigger(replace(old, words=1001), max_age_days=None) is None


def test_another_base_is_a_reason_only_when_the_rules_say_so() -> None:
    other = replace(TRAINED, wanted_base="two")
    assert found(other) is None
    assert trigger(other, base_change=True) is Trigger.BASE
    assert trigger(replace(other, wanted_base="one"), base_change=True) is None


def test_the_calendar_is_a_reason_once_for_each_of_its_moments() -> None:
    monday = {"schedule": "0 3 * * 1"}
    before = replace(TRAINED, words=1001, trained_at=NOW - timedelta(days=5))
    assert trigger(before, **monday) is Trigger.SCHEDULE
    assert trigger(replace(before, words=1000), **monday) is None, "nothing new"
    assert trigger(replace(before, submitted_at=NOW - timedelta(days=1)), **monday) is None, "submitted since"


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param("0 0 30 2 *", id="the 30th of February"),
        pytest.param("* * * * * * 2099", id="with seconds and years"),
        pytest.param("@hourly", id="an alias"),
        pytest.param("R R * * *", id="by lot"),
        pytest.param("H * * * *", id="by hash"),
    ],
)
def test_a_schedule_without_moments_of_its_own_is_refused_and_a_stored_one_is_never_due(schedule: str) -> None:
    with pytest.raises(JobRequestInvalid, match="five fields"):
        replace(RULES, schedule=schedule).check()
    if schedule == "0 0 30 2 *":  # kept by an earlier version
        assert trigger(replace(TRAINED, words=1001, trained_at=NOW - timedelta(days=5)), schedule=schedule) is None


@pytest.mark.parametrize("schedule", ["0 3 * * 1", "*/15 8-18 * mar,apr fri", "0 0 29 2 *", "0 0 l * *"])
def test_a_schedule_that_some_moment_fits_is_taken(schedule: str) -> None:
    assert replace(RULES, schedule=schedule).check().schedule == schedule


def test_erased_words_are_no_new_words() -> None:
    assert found(replace(TRAINED, words=200)) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"schedule": "soon"}, "schedule"), ({"new_words": -1}, "new_words"), ({"max_age_days": -0.1}, "max_age_days")],
)
def test_a_rule_that_cannot_be_followed_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(JobRequestInvalid) as refusal:
        replace(RULES, **changes).check()
    assert refusal.value.field == field
