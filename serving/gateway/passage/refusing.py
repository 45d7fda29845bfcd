"""How a request is refused before it reaches the application: as the application would have done it."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Scope

from kit.errors import LorryError
from kit.problems import refusal
from serving.gateway.openai_errors import with_openai_error


def refuse(exc: LorryError, scope: Scope) -> Response:
    """Return the problem details of an error, with OpenAI's ``error`` object beside them on OpenAI's routes."""
    return with_openai_error(refusal(exc), path=scope["path"])
