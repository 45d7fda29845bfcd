"""When a call is tried again, and when: after what passes by itself, ever more slowly, never all clients at once.

Every call that changes something carries an idempotency key, the same in all its attempts, so that none is done twice.
"""

from __future__ import annotations

import uuid
from typing import Any

import httpx
from tenacity import RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from kit.tls import authorities
from lorry.client.calls import Call
from lorry.client.errors import NotAnswered, Refused

_PASSING = frozenset({429, 502, 503, 504})
_STILL_RUNNING = "request-still-running"
_MOST_SECONDS = 30.0
_backoff = wait_exponential_jitter(multiplier=0.2, max=10.0, jitter=0.3)


def passes(error: BaseException) -> bool:
    """Say whether another attempt may succeed."""
    if isinstance(error, Refused):
        return error.status in _PASSING or error.code == _STILL_RUNNING
    return isinstance(error, NotAnswered)


def pause(state: RetryCallState) -> float:
    """Return how long to wait: as long as the server says, and a random while longer."""
    error = state.outcome.exception() if state.outcome else None
    told = error.retry_after_seconds if isinstance(error, Refused) else None
    return min(_MOST_SECONDS, (told or 0.0) + _backoff(state))


def options(attempts: int) -> dict[str, Any]:
    """Return how tenacity is to retry."""
    return {"stop": stop_after_attempt(attempts), "retry": retry_if_exception(passes), "wait": pause, "reraise": True}


def request_arguments(call: Call[Any], *, deadline_seconds: float | None) -> dict[str, Any]:
    """Return what httpx sends for a call; build it once for all attempts."""
    headers = dict(call.headers)
    if call.method != "GET":
        headers["idempotency-key"] = uuid.uuid4().hex
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


def not_answered(error: httpx.HTTPError) -> NotAnswered:
    """Return what a failure of the network is to callers."""
    return NotAnswered(f"Lorry's API did not answer: {type(error).__name__}")


def client_arguments(url: str, key: str, *, timeout_seconds: float) -> dict[str, Any]:
    """Return how httpx connects; idle connections are let go of before the server does."""
    return {
        "base_url": url,
        "headers": {"authorization": f"Bearer {key}"},
        "timeout": httpx.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds)),
        "limits": httpx.Limits(keepalive_expiry=2.0),
        "verify": authorities(by_environment=True),
    }
