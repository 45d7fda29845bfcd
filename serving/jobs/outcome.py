"""What becomes of a user whose extraction failed: plain code, no database.

A part that is away is nobody's failure: the user waits until it is back, however long that takes. What another attempt
may cure is tried again a bounded number of times. The rest ends this user, and nobody else.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from kit.errors import (
    BeingErased,
    DatabaseUnavailable,
    LorryError,
    MasterKeyUnavailable,
    StorageUnavailable,
    problem_code,
)
from registry.errors import RegistryUnavailable
from serving.errors import EngineRefused, EngineUnavailable

_MESSAGE_CHARACTERS = 1000
_AWAY = (DatabaseUnavailable, StorageUnavailable, RegistryUnavailable, MasterKeyUnavailable)
# The engine says no for now: too much to do, or an adapter on its way out, which the next resolve answers.
_PASSING_STATUSES = frozenset({404, 409, 429})


class Fate(StrEnum):
    """What a failure means for its user."""

    WAITS = "waits"
    AGAIN = "again"
    FAILED = "failed"


def fate_of(exc: Exception, *, engine_answers: bool) -> Fate:
    """Return what a failure means.

    Args:
        exc: what was raised.
        engine_answers: whether the engine answers its health check now; one that does and still refuses is no outage.
    """
    if isinstance(exc, (*_AWAY, BeingErased)):  # who is erased is not taken in hand again
        return Fate.WAITS
    if isinstance(exc, EngineUnavailable):
        return Fate.AGAIN if engine_answers else Fate.WAITS
    if isinstance(exc, EngineRefused):
        return Fate.AGAIN if exc.status_code in _PASSING_STATUSES else Fate.FAILED
    if isinstance(exc, LorryError):
        return Fate.AGAIN if exc.status_code >= 500 or exc.status_code == 429 else Fate.FAILED
    return Fate.AGAIN


def explain(exc: Exception) -> dict[str, Any]:
    """Return an error for people; of what is not ours only the kind, as its text may hold anything."""
    if isinstance(exc, LorryError):
        return {"code": problem_code(type(exc)), "message": exc.message[:_MESSAGE_CHARACTERS]}
    return {"code": "internal", "message": f"something broke on our side: {type(exc).__name__}"}
