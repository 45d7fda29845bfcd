"""One call as a value, and what all of them are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from kit.errors import InvalidName
from kit.names import check_name
from lorry.client.errors import NotUnderstood, error_from, invalid

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
PAGE_ROWS = 1000
SHARED = "~"
_VERSION = "x-lorry-adapter-version"


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One call; `read` makes its result of a successful answer.

    `also` are statuses beside 200 to 299 that `read` understands. `part` numbers the calls that one method makes, so
    that each has an idempotency key of its own; 0 = it makes one. `is_kept` says that the answer is kept under such a
    key, which a stream's is not; `changes` that the call does something, and not again without one.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    json: Any = None
    content: bytes | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    also: frozenset[int] = frozenset()
    part: int = 0
    is_kept: bool = True
    changes: bool = True

    def result(self, response: httpx.Response) -> T:
        """Return what an answer, which has been read, says.

        Raises:
            Refused: when it is a refusal.
            NotUnderstood: when it is not what this client expects.
        """
        if not response.is_success and response.status_code not in self.also:
            raise error_from(response)
        try:
            return self.read(response)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as exc:
            raise NotUnderstood(f"{self.method} {self.path} was answered with what this client cannot read") from exc


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """Some of a listing, and where it goes on; None = it does not."""

    items: list[T]
    cursor: str | None


def stream(
    path: str,
    *,
    accept: str,
    method: str = "GET",
    json: Any = None,
    params: Mapping[str, Any] | None = None,
) -> Call[None]:
    """Return the call that opens a stream, which whoever reads its lines understands; it changes nothing."""
    headers = {"accept": accept}
    return Call(
        method=method,
        path=path,
        json=json,
        params=params or {},
        headers=headers,
        read=lambda response: None,
        is_kept=False,
        changes=False,
    )


def model(kind: type[M]) -> Callable[[httpx.Response], M]:
    """Return what reads one object; what a newer gateway says more is left out."""
    return lambda response: kind.model_validate_json(response.content, extra="ignore")


def page(kind: type[M], name: str, *, cursor: str = "next_cursor") -> Callable[[httpx.Response], Page[M]]:
    """Return what reads a page whose rows are under `name`, and its end under `cursor`."""

    def read(response: httpx.Response) -> Page[M]:
        body = response.json()
        return Page(items=rows(kind, body[name]), cursor=body[cursor])

    return read


def rows(kind: type[M], values: Iterable[Any]) -> list[M]:
    """Return rows of a listing, read from JSON."""
    return [kind.model_validate(each, extra="ignore") for each in values]


def adapter_version(response: httpx.Response) -> int | None:
    """Return which version of an adapter gave an answer; None = none did."""
    return version_in(response.headers)


def version_in(headers: Mapping[str, str]) -> int | None:
    """Return which version of an adapter gives the answer that has these headers; None = none does."""
    told = headers.get(_VERSION, "")
    return int(told) if told.isdecimal() else None


def segment(value: str, *, field: str) -> str:
    """Return a name as part of a path.

    Raises:
        Invalid: naming `field`, for what is no name: with dots or slashes in it, it would be another route's address.
    """
    try:
        return quote(check_name(value, field=field), safe="")
    except InvalidName as exc:
        raise invalid(exc.message, field=field, code="invalid-name") from exc


def user_path(user: str) -> str:
    """Return the address of a user; raises as `segment`."""
    return f"/v1/users/{segment(user, field='user_id')}"


def given(**values: Any) -> dict[str, Any]:
    """Return those values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
