"""Conditional requests (RFC 9110, 13): a reader that has the answer already is not sent it again."""

from __future__ import annotations

import re

from fastapi import Request, Response
from pydantic import BaseModel

from kit.canonical import sha256_bytes

_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"')
_DIGITS = 32


def conditional(request: Request, body: BaseModel | bytes, *, tag: str | None = None) -> Response:
    """Return `body` as JSON with an ETag, or 304 when ``If-None-Match`` says that the caller has it.

    Args:
        request: the request; GET or HEAD.
        body: a model, or JSON that was written before.
        tag: what changes whenever the body does; a digest of the body when omitted.
    """
    content = body if isinstance(body, bytes) else body.model_dump_json().encode()
    tag = tag or sha256_bytes(content)[:_DIGITS]
    headers = {"etag": f'"{tag}"', "cache-control": "private, no-cache"}
    if matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="application/json", headers=headers)


def matches(header: str | None, tag: str) -> bool:
    """Say whether an ``If-None-Match`` or ``If-Match`` header names the tag; ``*`` names every one."""
    return header is not None and (header.strip() == "*" or tag in tags(header))


def tags(header: str) -> list[str]:
    """Return the tags that a header lists, weak ones included; what is no tag is left out."""
    return _TAG.findall(header)
