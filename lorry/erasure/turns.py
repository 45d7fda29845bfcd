"""Whose erasure is advanced next: tenants take turns, so that nobody's waits for ten thousand of somebody else's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from serving.erasure.repository import Task

_MOST_AT_A_TIME = 16


class Turns:
    """Remembers how far it came with each tenant's."""

    def __init__(self, *, most: int = _MOST_AT_A_TIME) -> None:
        """Give each tenant at most so many turns in one round."""
        self._most = most
        self._last: dict[str, str] = {}

    def next(self, running: Sequence[Task]) -> list[Task]:
        """Return the next round: of every tenant the first, then of every one the second; each comes in its turn.

        Args:
            running: every erasure that has not ended, the oldest first.
        """
        by_tenant: dict[str, list[Task]] = {}
        for task in running:
            by_tenant.setdefault(task.tenant, []).append(task)
        rounds = [self._turn(tenant, tasks) for tenant, tasks in by_tenant.items()]
        self._last = {tenant: last for tenant, last in self._last.items() if tenant in by_tenant}
        return [task for row in zip_longest(*rounds) for task in row if task is not None]

    def _turn(self, tenant: str, tasks: list[Task]) -> list[Task]:
        ids = [task.id for task in tasks]
        start = ids.index(self._last[tenant]) + 1 if self._last.get(tenant) in ids else 0
        chosen = [*tasks[start:], *tasks[:start]][: self._most]
        self._last[tenant] = chosen[-1].id
        return chosen
