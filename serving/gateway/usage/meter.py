"""Counting what is used without anybody waiting for it: in memory, and written down every few seconds.

What a gateway counted and did not write before it was killed is lost: at most a few seconds of one gateway. While the
database is silent, it is kept and written later.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from kit.database import Database
from kit.errors import LorryError
from serving.gateway.chores import Chore
from serving.gateway.usage.repository import UsageRepository, Used

_ROWS_AT_ONCE = 1000
_Key = tuple[str, date, str]


@dataclass(frozen=True)
class _Counted:
    """What was counted and not written yet; `first_at`, on the monotonic clock, is when the first of it was."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    first_at: float

    def __add__(self, other: _Counted) -> _Counted:
        return _Counted(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            first_at=min(self.first_at, other.first_at),
        )


class Meter:
    """Counts requests and tokens by tenant, day and user."""

    def __init__(self, database: Database, *, every_seconds: float) -> None:
        self._database = database
        self._counts: dict[_Key, _Counted] = {}
        self.chore = Chore(self.write, every_seconds=every_seconds, last=self.write)

    def count(self, tenant: str, user: str, *, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """Count one request and its tokens."""
        counted = _Counted(1, prompt_tokens, completion_tokens, first_at=time.monotonic())
        self._add((tenant, datetime.now(UTC).date(), user), counted)

    def count_usage(self, tenant: str, user: str, usage: Any) -> None:
        """Count one request by the ``usage`` object of the engine's answer; what is no number counts as none."""
        found = usage if isinstance(usage, dict) else {}
        prompt, completion = (_whole(found.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        self.count(tenant, user, prompt_tokens=prompt, completion_tokens=completion)

    async def write(self) -> None:
        """Write down what was counted; keep what could not be written.

        Raises:
            DatabaseUnavailable: when the database does not answer.
        """
        counted, self._counts = self._counts, {}
        keys = list(counted)
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            batch = keys[start : start + _ROWS_AT_ONCE]
            try:
                async with self._database.transaction() as session:
                    await UsageRepository(session).add([_used(key, counted[key]) for key in batch])
            except LorryError:
                for key in keys[start:]:
                    self._add(key, counted[key])
                raise

    def _add(self, key: _Key, counted: _Counted) -> None:
        known = self._counts.get(key)
        self._counts[key] = counted if known is None else known + counted


def _whole(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


def _used(key: _Key, counted: _Counted) -> Used:
    tenant, day, user = key
    return Used(
        tenant=tenant,
        day=day,
        user_id=user,
        requests=counted.requests,
        prompt_tokens=counted.prompt_tokens,
        completion_tokens=counted.completion_tokens,
        age_seconds=time.monotonic() - counted.first_at,
    )
