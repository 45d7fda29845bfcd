"""Which users a batch is about: a list, a file of lines, or everybody with a live adapter; all of them or the stale."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from kit.errors import InvalidName
from kit.names import check_name
from serving.jobs.errors import BatchRequestInvalid

Only = Literal["all", "stale"]
_LINE_SHOWN = 80


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Users of one tenant. `users` None = everybody with a live adapter.

    `only` ``stale`` leaves out whoever has a profile by the live version and this bank; with `max_age_days`, one that
    is older is stale as well.
    """

    users: tuple[str, ...] | None = None
    only: Only = "all"
    max_age_days: float | None = None

    @classmethod
    def of(
        cls,
        *,
        users: Iterable[str] | None = None,
        everybody: bool = False,
        only: str = "all",
        max_age_days: float | None = None,
    ) -> Self:
        """Return a selection without anybody twice.

        Raises:
            BatchRequestInvalid: naming the field and the reason.
            InvalidName: naming the first user that is no name.
        """
        if (users is not None) == everybody:
            raise BatchRequestInvalid("say which users: either a list, or all with a live adapter", field="users")
        for kind in get_args(Only):
            if only == kind:
                break
        else:
            raise BatchRequestInvalid(f"only is {only[:32]!r}; it is one of {', '.join(get_args(Only))}", field="only")
        if max_age_days is not None and only != "stale":
            raise BatchRequestInvalid("an age says who is stale: it needs only = stale", field="max_age_days")
        if max_age_days is not None and not 0 <= max_age_days <= 36_500:
            raise BatchRequestInvalid("max_age_days must be from 0 to 36500", field="max_age_days")
        named = None if users is None else tuple(dict.fromkeys(check_name(user, field="users") for user in users))
        if named is not None and not named:
            raise BatchRequestInvalid("the list of users is empty", field="users")
        return cls(users=named, only=kind, max_age_days=max_age_days)

    def to_json(self) -> dict[str, Any]:
        """Return what is kept with the batch: the rule, while its users have rows of their own."""
        return {"everybody": self.users is None, "only": self.only, "max_age_days": self.max_age_days}


def read_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield the users that lines name: a name, a JSON string, or an object with `user_id`; empty lines are passed over.

    Raises:
        BatchRequestInvalid: naming the first line that names nobody.
    """
    for number, line in enumerate(lines, 1):
        if stripped := line.strip():
            yield _read_line(stripped, number)


def _read_line(line: str, number: int) -> str:
    name: Any = line
    if line[0] in '"{[':
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise _unreadable(line, number, "is not JSON") from exc
        name = value.get("user_id") if isinstance(value, dict) else value
    if not isinstance(name, str):
        raise _unreadable(line, number, "has no user_id")
    try:
        return check_name(name, field=f"line {number}")
    except InvalidName as exc:
        raise _unreadable(line, number, "is no name: 1 to 128 of A-Z a-z 0-9 . _ : -") from exc


def _unreadable(line: str, number: int, why: str) -> BatchRequestInvalid:
    return BatchRequestInvalid(f"line {number} {why}: {line[:_LINE_SHOWN]!r}", field=f"line {number}")
