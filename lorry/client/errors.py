"""What calls of the public API can end in.

ApiError                         500
├── NotAnswered                  503
├── NotUnderstood                502
└── Refused                      500
    ├── Unauthenticated          401
    ├── Forbidden                403
    ├── NotFound                 404
    ├── Conflict                 409
    ├── Invalid                  422
    ├── RateLimited              429
    └── Unavailable              503
"""

from __future__ import annotations

from typing import Any

import httpx

from kit.errors import LorryError

_KIND = "urn:lorry:problem:"


class ApiError(LorryError):
    """A call of Lorry's API failed."""


class NotAnswered(ApiError):
    """Lorry's API did not answer."""

    status_code = 503


class NotUnderstood(ApiError):
    """The answer is none that this client can read: another version's, or of something between it and Lorry."""

    status_code = 502


class Refused(ApiError):
    """Lorry's API refused; `code` says why for programs, the message for people.

    `status` is the answer's; `problem` holds all that it said; `request_id` names the request in Lorry's logs.
    """

    status: int = 0
    code: str = ""
    request_id: str = ""

    @property
    def problem(self) -> dict[str, Any]:
        """Return everything that the answer said."""
        return self.details

    @property
    def retry_after_seconds(self) -> float | None:
        """Return how long to wait before another attempt, where the answer said so."""
        seconds = self.details.get("retry_after_seconds")
        return float(seconds) if isinstance(seconds, int | float) else None


class Unauthenticated(Refused):
    """The API key is missing, wrong, revoked or over."""

    status_code = 401


class Forbidden(Refused):
    """The API key lacks a scope."""

    status_code = 403


class NotFound(Refused):
    """There is no such thing in this tenant."""

    status_code = 404


class Conflict(Refused):
    """The state of things forbids it, as when a user has no adapter yet."""

    status_code = 409


class Invalid(Refused):
    """Something in the request is not valid."""

    status_code = 422


class RateLimited(Refused):
    """The tenant asks more than it may."""

    status_code = 429


class Unavailable(Refused):
    """A part of Lorry does not answer now."""

    status_code = 503


_BY_STATUS = {
    error.status_code: error
    for error in (Unauthenticated, Forbidden, NotFound, Conflict, Invalid, RateLimited, Unavailable)
}


def invalid(message: str, *, field: str, code: str) -> Refused:
    """Return the refusal of something that is not sent, as the API would refuse it."""
    return refusal(422, {"type": f"{_KIND}{code}", "detail": message, "field": field})


def error_from(response: httpx.Response) -> Refused:
    """Return the error that an answer, which has been read, stands for."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    told = problem if isinstance(problem, dict) else {}
    seconds = response.headers.get("retry-after", "")
    if seconds.isdecimal():
        told.setdefault("retry_after_seconds", int(seconds))
    return refusal(response.status_code, told, request_id=response.headers.get("x-request-id", ""))


def refusal(status: int, problem: dict[str, Any], *, request_id: str = "") -> Refused:
    """Return the error that a problem stands for."""
    kind = _BY_STATUS.get(status) or (Unavailable if status in {502, 504} else Refused)
    message = str(problem.get("detail") or f"Lorry answered {status}.")
    details = {str(name): value for name, value in problem.items() if name not in {"message", "field"}}
    error = kind(message, field=problem.get("field"), **details)
    error.status = error.status_code = status
    error.code = str(problem.get("type", "")).removeprefix(_KIND)
    error.request_id = request_id
    return error
