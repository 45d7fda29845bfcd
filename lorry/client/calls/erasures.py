"""Calls that erase a user."""

from __future__ import annotations

from lorry.client.calls.call import Call, model, user_path
from lorry.client.results import Erasure


def ask(user: str) -> Call[Erasure]:
    """Have everything of a user erased."""
    return Call(method="POST", path=_path(user), read=model(Erasure))


def get(user: str) -> Call[Erasure]:
    """Read what an erasure has done."""
    return Call(method="GET", path=_path(user), read=model(Erasure))


def _path(user: str) -> str:
    return f"{user_path(user)}/erasure"
