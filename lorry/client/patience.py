"""When a call is tried again, and when: after what passes by itself, ever more slowly, never all clients at once.

Every call that changes something carries an idempotency key, the same in all its attempts, so that none is done twice.
"""

from __future__ import annotations

import random
import re
import uuid
from typing import Any

import httpx
from tenacity import RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from kit.tls import authorities
from lorry.client.calls.call import Call
from lorry.client.errors import ApiError, NotAnswered, Refused, Unauthenticated, error_from, invalid

_PASSING = frozenset({429, 502, 503, 504})
_STILL_RUNNING = "request-still-running"
_UNAVAILABLE, _NO_DATABASE = 503, "database-unavailable"
_MOST_SECONDS = 30.0
_FIRST_SECONDS = 0.2
_KEY_CHARACTERS = 255
_backoff = wait_exponential_jitter(multiplier=0.2, max=10.0, jitter=0.3)


def passes(error: BaseException) -> bool:
    """Say whether another attempt may succeed."""
    if isinstance(error, Refused):
        return error.status in _PASSING or error.code == _STILL_RUNNING
    return isinstance(error, NotAnswered)


def pause(state: RetryCallState) -> float:
    """Return how long to wait: as long as the server says, and a random while longer."""
    return _as_told(state.outcome.exception() if state.outcome else None, and_seconds=_backoff(state))


def options(attempts: int) -> dict[str, Any]:
    """Return how tenacity is to retry."""
    return {"stop": stop_after_attempt(attempts), "retry": retry_if_exception(passes), "wait": pause, "reraise": True}


class Endurance:
    """How long a stream that breaks off is begun again: as often in a row as a call is tried, and anew after each word.

    Silence does not count: what waits for something to happen has nothing to say.
    """

    def __init__(self, *, attempts: int) -> None:
        """Begin with as many attempts as calls have; 1 = none is repeated."""
        self._attempts = attempts
        self._broken = 0

    def heard(self) -> None:
        """Take in that something came."""
        self._broken = 0

    def pause_after(self, error: ApiError) -> float:
        """Return how many seconds to wait before the stream is begun again; raise `error` when it is not."""
        if not passes(error) or self._attempts <= 1:
            raise error
        if isinstance(error.__cause__, httpx.ReadTimeout):
            return 0.0
        self._broken += 1
        if self._broken >= self._attempts:
            raise error
        longest = min(_MOST_SECONDS, _FIRST_SECONDS * 2**self._broken)
        return _as_told(error, and_seconds=random.uniform(longest / 2, longest))


def _as_told(error: BaseException | None, *, and_seconds: float) -> float:
    """Return as many seconds as a refusal tells, and some more; none takes longer than `_MOST_SECONDS`."""
    told = error.retry_after_seconds if isinstance(error, Refused) else None
    return min(_MOST_SECONDS, (told or 0.0) + and_seconds)


def request_arguments(
    call: Call[Any], *, deadline_seconds: float | None, idempotency_key: str | None
) -> dict[str, Any]:
    """Return what httpx sends for a call; build it once for all attempts.

    Without a key of the caller's, what is not only reading gets one of its own, unless its answer is not kept.
    """
    headers = dict(call.headers)
    if call.method != "GET" and (call.is_kept or idempotency_key is not None):
        part = f".{call.part}" if call.part else ""
        headers["idempotency-key"] = uuid.uuid4().hex if idempotency_key is None else idempotency_key + part
    if deadline_seconds is not None:
        headers["x-lorry-deadline"] = f"{deadline_seconds:.3f}"
    return {
        "method": call.method,
        "url": call.path,
        "json": call.json,
        "content": call.content,
        "params": dict(call.params),
        "headers": headers,
    }


def goes_without_key(call: Call[Any], response: httpx.Response, *, idempotency_key: str | None) -> bool:
    """Say whether a call is to be sent again at once without the key that it was given here, and was sent with.

    What changes nothing need not wait for the database that keys are kept in; a key of the caller's own is kept to.
    """
    had_key = "idempotency-key" in response.request.headers
    if call.changes or not had_key or idempotency_key is not None or response.status_code != _UNAVAILABLE:
        return False
    error = error_from(response)
    return isinstance(error, Refused) and error.code == _NO_DATABASE


def not_answered(error: httpx.HTTPError) -> NotAnswered:
    """Return what a failure of the network is to callers."""
    return NotAnswered(f"Lorry's API did not answer: {type(error).__name__}")


def client_arguments(url: str, key: str, *, timeout_seconds: float) -> dict[str, Any]:
    """Return how httpx connects; idle connections are let go of before the server does.

    Raises:
        Invalid: naming `url`, when it leads nowhere, or to one version of the API.
        Unauthenticated: for a key that no header can carry.
    """
    if not url.startswith(("http://", "https://")) or url.rstrip("/").endswith("/v1"):
        raise invalid(f"{url!r} is not http:// or https:// and a gateway, without /v1", field="url", code="invalid-url")
    if not _can_be_sent(key):
        raise Unauthenticated("the API key is empty, or has characters that no header can carry", field="key")
    return {
        "base_url": url,
        "headers": {"authorization": f"Bearer {key}"},
        "timeout": httpx.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds)),
        "limits": httpx.Limits(keepalive_expiry=2.0),
        "verify": authorities(by_environment=True),
    }


def checked_key(idempotency_key: str) -> str:
    """Return a key of the caller's.

    Raises:
        Invalid: when it is not 1 to 255 visible ASCII characters.
    """
    if len(idempotency_key) > _KEY_CHARACTERS or not _can_be_sent(idempotency_key):
        message = f"an idempotency key is 1 to {_KEY_CHARACTERS} visible ASCII characters"
        raise invalid(message, field="idempotency_key", code="header-invalid")
    return idempotency_key


def _can_be_sent(text: str) -> bool:
    return re.fullmatch(r"[\x21-\x7e]+", text) is not None
