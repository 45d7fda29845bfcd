"""Calls that correct a user's profile."""

from __future__ import annotations

import httpx

from lorry.client.calls.call import Call, given, model, rows, segment, user_path
from lorry.client.results import Correction, CorrectionKind


def list_all(user: str, *, withdrawn: bool) -> Call[tuple[Correction, ...]]:
    """Read what was corrected."""

    def read(response: httpx.Response) -> tuple[Correction, ...]:
        return tuple(rows(Correction, response.json()["corrections"]))

    return Call(method="GET", path=_path(user), params={"withdrawn": withdrawn}, read=read)


def correct(user: str, kind: CorrectionKind, fact: str, *, text: str | None, by: str) -> Call[Correction]:
    """Edit, confirm or forbid a fact."""
    body = {"kind": kind, "fact": fact, "by": by} | given(text=text)
    return Call(method="POST", path=_path(user), json=body, read=model(Correction))


def withdraw(user: str, correction_id: int, *, by: str) -> Call[None]:
    """Take a correction back."""
    path = f"{_path(user)}/{segment(str(correction_id), field='correction_id')}"
    return Call(method="DELETE", path=path, params={"by": by}, read=lambda response: None)


def _path(user: str) -> str:
    return f"{user_path(user)}/profile/corrections"
