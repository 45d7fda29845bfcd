"""Every public method of both clients, called with something for each argument, and what each sends."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import date
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from lorry.client import AsyncClient, Client, NotFound, Transcript, Turn
from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings

URL = "http://gateway.test"
ID = "0" * 32
_TALK = Transcript(name="talk-1", turns=[Turn(role="user", text="I like tea")])
_SAID = {
    "adapter": "profile", "after": 7, "alias": "live", "base": "a-base", "budget_tokens": 100, "by": "bob",
    "correction_id": 1, "document": "name: mine", "everybody": True, "expected_version_id": f"v{ID}",
    "extraction_id": f"b{ID}", "fact": "I like tea", "fallback": "profile", "follow": True, "key": "k",
    "max_age_days": 1.0, "max_tokens": 5, "messages": [{"role": "user", "content": "?"}], "name": "talk-1", "new": "2",
    "old": "1", "only": "stale", "question": "?", "schema": {"type": "string"}, "selector": "1",
    "settings": {"steps": 3}, "since": date(2026, 1, 1), "source": "candidate", "states": ["done"], "suspended": True,
    "target": "live", "temperature": 0.5, "text": "I like matcha", "training_id": f"j{ID}", "transcript": _TALK,
    "transcripts": [_TALK], "until": date(2026, 1, 2), "user": "ann", "users": ["ann"], "version_id": f"v{ID}",
    "webhook": "https://example.org/", "why": "a test", "withdrawn": True,
}  # fmt: skip
_SAID_ELSEWHERE = {("models", "get"): {"name": "users/ann"}, ("adapters", "find_versions"): {"transcript": "t1"}}
_LEFT_OUT = {"every_seconds", "known"}
_NO_CALLS = {"close", "with_idempotency_key"}


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What one method sends first."""

    method: str
    path: str
    query: frozenset[str]
    fields: frozenset[str]
    accept: str


class Ledger(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A network at whose end nothing is found; what is sent is written down."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        is_json = request.headers.get("content-type") == "application/json"
        self.sent.append(
            Sent(
                method=request.method,
                path=request.url.path,
                query=frozenset(request.url.params.keys()),
                fields=frozenset(json.loads(body) if body and is_json else {}),
                accept=request.headers["accept"],
            )
        )
        return httpx.Response(404, json={"type": "urn:lorry:problem:http-404", "status": 404, "detail": "nothing"})

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self.handle_request(request)


def described() -> FastAPI:
    """The gateway, only asked what it is, so that it needs no services."""
    token = SecretStr("x" * 16)
    return create_app(
        GatewaySettings(
            database_url="postgresql+asyncpg://x/x",
            registry_url="http://x",
            registry_token=token,
            engine_url="http://x",
            engine_token=token,
        )
    )


def methods(client: Client | AsyncClient) -> Iterator[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """Yield every public method that calls the gateway: its name, itself, and something for each argument."""
    nouns = {name: value for name, value in vars(client).items() if not name.startswith("_") and not callable(value)}
    for noun, holder in {"": client, **nouns}.items():
        for name, _ in inspect.getmembers(type(holder), inspect.isfunction):
            if not name.startswith("_") and name not in _NO_CALLS:
                method = getattr(holder, name)
                yield f"{noun}.{name}".lstrip("."), method, _arguments(method, _SAID_ELSEWHERE.get((noun, name), {}))


def sent_by_blocking() -> dict[str, Sent]:
    """Return what each method of the blocking client sends."""
    ledger, found = Ledger(), {}
    with Client(url=URL, key="k", transport=ledger) as client:
        for name, method, arguments in methods(client):
            try:
                _finish(method(**arguments))
            except NotFound:
                found[name] = ledger.sent[-1]
    return found


async def sent_by_awaited() -> dict[str, Sent]:
    """Return what each method of the awaited client sends."""
    ledger, found = Ledger(), {}
    async with AsyncClient(url=URL, key="k", transport=ledger) as client:
        for name, method, arguments in methods(client):
            try:
                await _finish_awaited(method(**arguments))
            except NotFound:
                found[name] = ledger.sent[-1]
    return found


def both() -> dict[str, dict[str, Sent]]:
    """Return what each method sends, by client."""
    return {"blocking": sent_by_blocking(), "awaited": asyncio.run(sent_by_awaited())}


def route_of(sent: Sent, app: FastAPI) -> tuple[str, str] | None:
    """Return the route that takes what is sent, as OpenAPI spells it; None when there is none."""
    fitting = [
        (sent.method, path)
        for path, verbs in app.openapi()["paths"].items()
        if sent.method.lower() in verbs and _pattern(path).fullmatch(sent.path)
    ]
    return min(fitting, key=lambda route: route[1].count("{"), default=None)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("".join(_part(each) for each in re.split(r"(\{\w+\})", path)))


def _part(each: str) -> str:
    if each == "{model}":
        return ".+"
    return "[^/]+" if each.startswith("{") else re.escape(each)


def _arguments(method: Callable[..., Any], elsewhere: dict[str, Any]) -> dict[str, Any]:
    named = [
        each.name
        for each in inspect.signature(method).parameters.values()
        if each.kind is not inspect.Parameter.VAR_KEYWORD and each.name not in _LEFT_OUT
    ]
    return {name: elsewhere.get(name, _SAID.get(name)) for name in named}


def _finish(result: Any) -> None:
    if isinstance(result, AbstractContextManager):
        with result:
            return
    for _ in result:
        return


async def _finish_awaited(result: Any) -> None:
    if isinstance(result, Awaitable):
        await result
    elif isinstance(result, AbstractAsyncContextManager):
        async with result:
            return
    elif isinstance(result, AsyncIterator):
        await anext(result)
