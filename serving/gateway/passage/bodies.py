"""How large a body may be, by route."""

from __future__ import annotations

import re

from starlette.types import Scope

from serving.gateway.settings import GatewaySettings

_BULK = re.compile(r"/v1/users/[^/]+/transcripts")
_EXTRACTIONS = "/v1/extractions"
_TRANSCRIPT = re.compile(r"/v1/users/[^/]+/transcripts/[^/]+")


class Sizes:
    """Says how many bytes a request's body may have."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._usual = settings.gateway_max_request_bytes
        self._transcript = settings.gateway_max_transcript_bytes
        self._bulk = settings.gateway_max_bulk_bytes

    def __call__(self, scope: Scope) -> int:
        """Return the most bytes for the route that the request is for."""
        if is_bulk(scope):
            return self._bulk
        if scope["method"] == "PUT" and _TRANSCRIPT.fullmatch(scope["path"]):
            return self._transcript
        return self._usual


def is_bulk(scope: Scope) -> bool:
    """Say whether a request uploads many transcripts, whose lines are judged one by one."""
    return scope["method"] == "POST" and _BULK.fullmatch(scope["path"]) is not None


def is_looked_at_later(scope: Scope) -> bool:
    """Say whether a body may be lines, so that whoever reads it looks at each and at a body that is JSON as a whole."""
    return is_bulk(scope) or (scope["method"] == "POST" and scope["path"] == _EXTRACTIONS)
