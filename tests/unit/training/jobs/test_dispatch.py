"""Whose turn it is: priorities, quotas, fairness between tenants, free slots."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.workers import backoff
from training.jobs.dispatch import Quota, Waiting, choose
from training.jobs.states import Phase

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def job(name: str, *, tenant: str = "a", priority: int = 0, age: int = 0, started: bool = False) -> Waiting:
    return Waiting(
        id=name,
        tenant=tenant,
        phase=Phase.TRAIN,
        priority=priority,
        submitted_at=EPOCH - timedelta(seconds=age),
        started=started,
    )


def ids(waiting: list[Waiting], *, slots: int = 10, **given: object) -> list[str]:
    arguments = {"running": {}, "quotas": {}, **given}
    return [each.id for each in choose(waiting, free={Phase.TRAIN: slots}, **arguments)]  # type: ignore[arg-type]


def test_a_higher_priority_overtakes_and_equals_go_by_age() -> None:
    waiting = [job("young", age=1), job("old", age=9), job("urgent", priority=5)]
    assert ids(waiting) == ["urgent", "old", "young"]


def test_what_was_begun_goes_before_what_was_not() -> None:
    assert ids([job("old", age=9), job("begun", age=1, started=True)]) == ["begun", "old"]


def test_no_more_are_chosen_than_slots_are_free() -> None:
    assert ids([job("one", age=2), job("two", age=1)], slots=1) == ["one"]
    assert ids([job("one")], slots=0) == []
    assert ids([job("one")], slots=-3) == [], "a worker that died leaves more jobs held than there are slots"


def test_slots_of_one_phase_are_not_the_others() -> None:
    assert choose([job("one")], free={Phase.PREPARE: 5}, running={}, quotas={}) == []


def test_a_tenant_with_a_thousand_users_does_not_hold_up_one_with_one() -> None:
    waiting = [job(f"a{number}", age=1000 - number) for number in range(50)] + [job("b", tenant="b")]
    assert "b" in ids(waiting, slots=2)


def test_a_tenant_at_its_quota_is_passed_over_and_not_waited_for() -> None:
    waiting = [job("a1", age=9, priority=9), job("a2", age=8, priority=9), job("b", tenant="b")]
    assert ids(waiting, quotas={"a": Quota(max_running=1)}) == ["a1", "b"]
    assert ids(waiting, quotas={"a": Quota(max_running=1)}, running={"a": 1}) == ["b"]
    assert ids(waiting, quotas={"a": Quota(max_running=0)}) == ["b"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(list(Phase)), st.integers(-2, 2), st.integers(0, 9)),
        max_size=30,
    ),
    st.dictionaries(st.sampled_from(list(Phase)), st.integers(-1, 6)),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 4)),
)
def test_quotas_and_slots_hold_and_nothing_is_left_out_that_fits(
    raw: list[tuple[str, Phase, int, int]], free: dict[Phase, int], limits: dict[str, int]
) -> None:
    waiting = [
        Waiting(id=str(n), tenant=t, phase=ph, priority=p, submitted_at=EPOCH - timedelta(seconds=age))
        for n, (t, ph, p, age) in enumerate(raw)
    ]
    quotas = {tenant: Quota(max_running=limit) for tenant, limit in limits.items()}
    chosen = choose(waiting, free=free, running={}, quotas=quotas)
    assert len({each.id for each in chosen}) == len(chosen)
    for phase in Phase:
        assert sum(each.phase is phase for each in chosen) <= max(free.get(phase, 0), 0)
    for tenant, limit in limits.items():
        assert sum(each.tenant == tenant for each in chosen) <= limit
    for left in set(waiting) - set(chosen):
        full = sum(each.phase is left.phase for each in chosen) >= free.get(left.phase, 0)
        used_up = sum(each.tenant == left.tenant for each in chosen) >= limits.get(left.tenant, 99)
        assert full or used_up


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 30), (2, 60), (3, 120), (8, 3600), (10_000, 3600)])
def test_pauses_double_up_to_a_limit(attempts: int, seconds: float) -> None:
    assert backoff(attempts, base_seconds=30, max_seconds=3600) == timedelta(seconds=seconds)
