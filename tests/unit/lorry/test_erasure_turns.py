"""Tenants take turns at being erased from."""

from __future__ import annotations

from lorry.erasure.turns import Turns
from serving.erasure.repository import Task


def tasks(tenant: str, count: int) -> list[Task]:
    return [Task(id=f"e{tenant}{number:03d}", tenant=tenant, user=f"u{number}") for number in range(count)]


def test_nobody_waits_for_all_of_somebody_elses() -> None:
    running = [*tasks("a", 1000), *tasks("b", 1)]
    turns = Turns(most=4)
    for _ in range(3):
        chosen = [task.tenant for task in turns.next(running)]
        assert chosen == ["a", "b", "a", "a", "a"]


def test_each_comes_in_its_turn_also_behind_many_that_wait() -> None:
    running, turns = tasks("a", 10), Turns(most=4)
    seen = [task.id for _ in range(5) for task in turns.next(running)]
    assert set(seen) == {task.id for task in running}
    assert max(map(seen.count, seen)) - min(map(seen.count, seen)) <= 1


def test_what_has_ended_meanwhile_changes_no_order() -> None:
    running, turns = tasks("a", 6), Turns(most=2)
    assert turns.next(running) == running[:2]
    assert turns.next(running[2:]) == running[2:4]
    assert turns.next([]) == []
