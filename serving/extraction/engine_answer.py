"""What an engine's answer to a call means: its choices, or one of our errors."""

from __future__ import annotations

import re
from typing import Any

import httpx

from registry.errors import BaseModelMismatch
from serving.errors import BaseWithoutEngine, EngineAnswerUnusable, EngineRefused, EngineUnavailable

# What the caller of the engine did wrong, or must wait for; everything else is the engine's trouble.
_RELAYED = frozenset({400, 404, 409, 413, 422, 429})
# What an engine calls its refusal of an adapter that was made for another base than the one it serves.
_OTHER_BASE = BaseModelMismatch.__name__
_VERSION_ID = re.compile(r"\bv[0-9a-f]{32}\b")


def choices_checked(response: httpx.Response) -> dict[str, Any]:
    """Return what a chat completion answered.

    Raises:
        EngineAnswerUnusable: when it is no JSON, or has no choices.
    """
    try:
        value = response.json()
    except ValueError as exc:
        raise EngineAnswerUnusable("the engine's answer is not JSON") from exc
    if not isinstance(value, dict) or not isinstance(value.get("choices"), list):
        raise EngineAnswerUnusable("the engine's answer has no choices", field="choices")
    return value


def raise_for_status(response: httpx.Response) -> None:
    """Return when the engine did as it was asked.

    Raises:
        BaseWithoutEngine: when it says no because it serves another base than the adapter's.
        EngineRefused: with its own status and reason, when it says no otherwise.
        EngineUnavailable: when it fails.
    """
    status = response.status_code
    if status < 400:
        return
    if _error(response).get("type") == _OTHER_BASE:
        raise BaseWithoutEngine
    details = _retry_after(response)
    if status == 503 and details:  # it is there, and said when to come back
        raise EngineUnavailable(f"the engine takes no request now: {_reason(response)}", **details)
    if status not in _RELAYED:
        raise EngineUnavailable(f"the engine answered {status}")
    refusal = EngineRefused(f"the engine refused the request: {_reason(response)}", engine_status=status, **details)
    refusal.status_code = status
    raise refusal


def _retry_after(response: httpx.Response) -> dict[str, Any]:
    seconds = response.headers.get("retry-after", "")
    return {"retry_after_seconds": int(seconds)} if seconds.isdecimal() and len(seconds) < 6 else {}


def _reason(response: httpx.Response) -> str:
    """Read the reason, with the version's id left out."""
    error = _error(response)
    text = str(error.get("message") or error.get("detail") or f"status {response.status_code}")
    return _VERSION_ID.sub("the adapter", text)[:500]


def _error(response: httpx.Response) -> dict[str, Any]:
    """Read OpenAI's error shape or problem details; empty when the answer is neither."""
    try:
        value = response.json()
    except ValueError:
        return {}
    error = value.get("error", value) if isinstance(value, dict) else {}
    return error if isinstance(error, dict) else {"message": error}
