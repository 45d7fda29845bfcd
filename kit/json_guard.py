"""No JSON body reaches a handler that could not be stored or would exhaust the stack.

PostgreSQL holds no NUL character in text, and neither it nor UTF-8 holds half of a surrogate pair; JSON's parsers and
serialisers recurse, and a body that is not UTF-8 has no meaning at all. Asked once here, before anything is parsed, so
that no route can forget it. Must stand inside `BodyLimit`, which bounds what is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.beside import beside, parse_json
from kit.problems import problem

MAX_DEPTH: Final = 64
# More cost seconds of parsing; no document of ours has a tenth of them.
_MAX_BRACKETS, _MAX_COMMAS = 200_000, 1_000_000
_BRACKET = re.compile(rb"[\[\]{}]")
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_ESCAPE = re.compile(  # one escape after the other: NUL, a whole pair of surrogates, half of one, or anything else
    rb"\\(?:(?P<nul>u0000)|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class JsonGuard:
    """Answers 422 to bodies that are no UTF-8, hold NUL or half a surrogate pair, or nest deeper than `MAX_DEPTH`.

    Large bodies are looked at beside the event loop. `passes` says which requests are not looked at, because whoever
    handles them asks `objection` piece by piece.
    """

    def __init__(self, app: ASGIApp, *, passes: Callable[[Scope], bool] = lambda scope: False) -> None:
        self._app = app
        self._passes = passes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the body, and pass the request on or refuse it."""
        if scope["type"] != "http" or self._passes(scope):
            await self._app(scope, receive, send)
            return
        messages, body = await _read(receive)
        refused = await beside(len(body), objection, body) if body else None
        if refused is not None:
            await _refuse(*refused)(scope, receive, send)
            return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)


def objection(body: bytes) -> tuple[str, str] | None:
    """Return (field, reason) of what is wrong with a body, None when nothing is.

    Whether it is JSON at all is for its parser to say.
    """
    try:
        body.decode()
    except UnicodeDecodeError as exc:
        return "body", f"is not UTF-8 at byte {exc.start}"
    depth, outside = 0, _outside_of_strings(body)
    for count, bracket in enumerate(_BRACKET.finditer(outside)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            return "body", f"nests deeper than {MAX_DEPTH} levels"
        if count > _MAX_BRACKETS:
            return "body", f"has more than {_MAX_BRACKETS // 2} lists and objects"
    if outside.count(b",") > _MAX_COMMAS:
        return "body", f"has more than {_MAX_COMMAS} values"
    escape = _first_unstorable(body)
    if escape is None:
        return None
    what = "a NUL character" if escape["nul"] else "half of a surrogate pair"
    return _find_unstorable(body), f"has {what}, which cannot be stored"


def _outside_of_strings(body: bytes) -> bytes:
    """Return JSON without its strings; one that never ends is taken to the end.

    Without escaped backslashes and quotation marks, every quotation mark begins or ends a string. Outside of strings a
    backslash is no JSON, and a parser goes no further.
    """
    return b"".join(body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])


def is_storable(text: str) -> bool:
    """Say whether PostgreSQL can hold a text: it has neither NUL nor half of a surrogate pair."""
    return _UNSTORABLE.search(text) is None


def _first_unstorable(body: bytes) -> re.Match[bytes] | None:
    if _SUSPECT.search(body) is None:
        return None
    return next((escape for escape in _ESCAPE.finditer(body) if escape["nul"] or escape["half"]), None)


def _find_unstorable(body: bytes) -> str:
    """Return the dotted path of the first string that cannot be stored; only of a body that nests within bounds."""
    try:
        return next(_unstorable_paths("body", parse_json(body)), "body")
    except ValueError:
        return "body"


def _unstorable_paths(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, str) and not is_storable(value):
        yield path
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _unstorable_paths(f"{path}.{name}", child) if is_storable(name) else [path]
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _unstorable_paths(f"{path}.{index}", child)


def _refuse(field: str, reason: str) -> ASGIApp:
    return problem(
        422,
        code="invalid-request",
        title="The request is not valid.",
        detail=f"{field}: {reason}",
        field=field,
        errors=[{"field": field, "reason": reason}],
    )


async def _read(receive: Receive) -> tuple[list[Message], bytes]:
    messages: list[Message] = []
    while True:
        message = await receive()
        messages.append(message)
        if not message.get("more_body", False):
            return messages, b"".join(each.get("body", b"") for each in messages)
