# Made by scripts/blocking_client.py of lorry/client/awaited: change it there.
"""How calls reach the gateway: patiently, page by page, and as streams that go on where they broke off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from tenacity import Retrying

from kit.lines import lines
from lorry.client.calls.call import Call, Page
from lorry.client.errors import ApiError, error_from
from lorry.client.following import Reader
from lorry.client.patience import (
    Endurance,
    checked_key,
    goes_without_key,
    not_answered,
    options,
    request_arguments,
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A stream that has begun: the head of its answer, and its lines."""

    headers: Mapping[str, str]
    lines: Iterator[str]


class Wire:
    """One gateway, reached over HTTP; knows no noun."""

    def __init__(
        self,
        http: httpx.Client,
        *,
        deadline_seconds: float | None,
        attempts: int,
        idempotency_key: str | None = None,
    ) -> None:
        """Send over `http`; what the others mean, `Client` says."""
        self._http = http
        self._deadline_seconds = deadline_seconds
        self._attempts = attempts
        self._idempotency_key = idempotency_key

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def under(self, idempotency_key: str) -> Wire:
        """Return a wire over the same connections, whose calls are done once under a key.

        Raises:
            Invalid: for what is no key.
        """
        key, deadline = checked_key(idempotency_key), self._deadline_seconds
        return Wire(self._http, deadline_seconds=deadline, attempts=self._attempts, idempotency_key=key)

    def send(self, call: Call[T]) -> T:
        """Send a call and return its result.

        Raises:
            ApiError: when it is refused, not answered, or not understood.
        """
        arguments = self._arguments(call)

        def attempt() -> T:
            try:
                response = self._http.request(**arguments)
                if goes_without_key(call, response, idempotency_key=self._idempotency_key):
                    del arguments["headers"]["idempotency-key"]
                    response = self._http.request(**arguments)
            except httpx.HTTPError as exc:
                raise not_answered(exc) from exc
            return call.result(response)

        return Retrying(**options(self._attempts))(attempt)

    def pages(self, call: Callable[[str | None], Call[Page[T]]]) -> Iterator[T]:
        """Yield what is on all pages of a listing; `call` makes the call for the page at a cursor."""
        cursor = None
        while True:
            page = self.send(call(cursor))
            yield from page.items
            if (cursor := page.cursor) is None:
                return

    def poll(self, call: Call[T], *, until: Callable[[T], bool], every_seconds: float) -> Iterator[T]:
        """Yield a call's result now, and again whenever it has changed, until it is the last one."""
        last = None
        while True:
            found = self.send(call)
            if found != last:
                yield found
            if until(found):
                return
            last = found
            time.sleep(every_seconds)

    def follow(self, reader: Reader[T]) -> Iterator[T]:
        """Yield what a stream tells, over as many connections as it takes."""
        endurance = Endurance(attempts=self._attempts)
        while True:
            with self.open(reader.begin()) as opened:
                try:
                    for line in opened.lines:
                        if (item := reader.feed(line)) is not None:
                            endurance.heard()
                            yield item
                        if reader.ended:
                            return
                    reader.close()
                    return
                except ApiError as exc:
                    pause = endurance.pause_after(exc)
            time.sleep(pause)

    @contextmanager
    def open(self, call: Call[Any]) -> Iterator[Opened]:
        """Yield a stream, which is begun patiently and not begun again once it runs; leaving the block closes it."""
        request = self._http.build_request(**self._arguments(call))
        response: httpx.Response = Retrying(**options(self._attempts))(self._begin, request)
        try:
            yield Opened(headers=response.headers, lines=_lines(response))
        finally:
            response.close()

    def _begin(self, request: httpx.Request) -> httpx.Response:
        try:
            response = self._http.send(request, stream=True)
            if not response.is_success:
                response.read()
        except httpx.HTTPError as exc:
            raise not_answered(exc) from exc
        if not response.is_success:
            raise error_from(response)
        return response

    def _arguments(self, call: Call[Any]) -> dict[str, Any]:
        return request_arguments(call, deadline_seconds=self._deadline_seconds, idempotency_key=self._idempotency_key)


def _lines(response: httpx.Response) -> Iterator[str]:
    try:
        yield from lines(response.iter_bytes())
    except httpx.HTTPError as exc:
        raise not_answered(exc) from exc
