"""The engine, as the gateway and extraction call it: OpenAI's chat protocol, one adapter version a request.

Every failure is one of `EngineCallError`'s branch. Version ids are opaque and stay inside: a message that
the engine returns is passed on with the id left out.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from registry.manifest import Manifest
from serving.errors import EngineAnswerUnusable, EngineCallError, EngineRefused, EngineTimeout, EngineUnavailable

_CHAT = "/v1/chat/completions"
# A load balancer before several engines keeps a version's requests together by this header.
_AFFINITY_HEADER = "x-lorry-adapter"
_CLASS_HEADER = "x-lorry-class"
_TENANT_HEADER = "x-lorry-tenant"
_TENANT_DIGITS = 32
# What the caller of the engine did wrong, or must wait for; everything else is the engine's trouble.
_RELAYED = frozenset({400, 404, 409, 413, 422, 429})
# The engine's server closes connections that are idle for 5 seconds: one that is about to be closed must not be reused.
_IDLE_SECONDS = 2.0
_VERSION_ID = re.compile(r"\bv[0-9a-f]{32}\b")


class EngineClient:
    """One engine, or a load balancer before several; an async context manager."""

    def __init__(
        self,
        *,
        url: str,
        token: str,
        timeout_seconds: float = 300.0,
        max_connections: int = 512,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare a client.

        Args:
            url: base URL of the engine.
            token: the engine's internal bearer token.
            timeout_seconds: longest silence of the engine, before and within an answer.
            max_connections: requests in flight at once.
            transport: how to connect, for tests; None = the network, proxies of the environment ignored.
        """
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds)),
            limits=httpx.Limits(
                max_connections=max_connections, max_keepalive_connections=64, keepalive_expiry=_IDLE_SECONDS
            ),
            transport=transport,
            trust_env=False,
        )
        self._tenant_key = token.encode()

    def headers(self, manifest: Manifest, *, kind: Literal["live", "batch"]) -> dict[str, str]:
        """Return what the engine is told beside a request for a version.

        Its class decides who goes first, and its tenant is told so that tenants take turns: as a keyed digest, the same
        from every gateway that has the engine's token, from which nobody else learns or guesses a name.
        """
        return {_AFFINITY_HEADER: manifest.version_id, **self.base_headers(manifest.owner.tenant, kind=kind)}

    def base_headers(self, tenant: str, *, kind: Literal["live", "batch"]) -> dict[str, str]:
        """Return what the engine is told beside a request for the base model, which any engine can answer."""
        digest = hmac.digest(self._tenant_key, f"tenant:{tenant}".encode(), "sha256").hex()
        return {_CLASS_HEADER: kind, _TENANT_HEADER: digest[:_TENANT_DIGITS]}

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def chat(self, payload: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the engine's answer to one chat completion that is not streamed.

        Raises:
            EngineRefused: with the engine's own status, when it says no; details hold `retry_after_seconds` when it
                said when to come back.
            EngineTimeout: when it is silent for too long.
            EngineUnavailable: when it cannot be reached, breaks off, or fails.
            EngineAnswerUnusable: when its answer has no choices.
        """
        try:
            response = await self._http.post(_CHAT, content=_encoded(payload), headers=_json_headers(headers))
        except httpx.HTTPError as exc:
            raise _translated(exc) from exc
        _raise_for_status(response)
        return _choices_checked(response)

    @asynccontextmanager
    async def stream(
        self, payload: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[str]]:
        """Open a streamed chat completion and yield its lines; leaving the block closes the engine's connection.

        Raises:
            EngineCallError: as `chat` does, when the engine does not begin to answer. What breaks off later
                rises from the lines.
        """
        try:
            body = _encoded(payload)
            async with self._http.stream("POST", _CHAT, content=body, headers=_json_headers(headers)) as response:
                if response.status_code >= 400:
                    await response.aread()
                    _raise_for_status(response)
                yield _lines(response)
        except httpx.HTTPError as exc:
            raise _translated(exc) from exc

    async def ask(
        self,
        question: str,
        *,
        manifest: Manifest,
        schema: Mapping[str, Any],
        samples: int,
        max_tokens: int,
        temperature: float,
        seed: int,
    ) -> list[str]:
        """Ask one question of one adapter, `samples` times, as batch work; return the raw texts, which `schema` shaped.

        A text that reached `max_tokens` is cut, and so may be no JSON: `parse_answers` reads it all the same.
        """
        answer = await self.chat(
            {
                "model": manifest.version_id,
                "messages": [{"role": "user", "content": question}],
                "n": samples,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "seed": seed,
                "response_format": {"type": "json_schema", "json_schema": {"name": "answers", "schema": schema}},
            },
            headers=self.headers(manifest, kind="batch"),
        )
        return [_content(choice) for choice in answer["choices"]]

    async def prefetch(self, manifest: Manifest, *, kind: Literal["live", "batch"]) -> None:
        """Tell the engine that requests for a version are about to come; it brings the adapter in the background.

        Raises:
            EngineCallError: as `chat` does.
        """
        path = f"/lorry/adapters/{manifest.version_id}/prefetch"
        headers = _json_headers(self.headers(manifest, kind=kind))
        try:
            response = await self._http.post(path, content=_encoded({"class": kind}), headers=headers, timeout=5.0)
        except httpx.HTTPError as exc:
            raise _translated(exc) from exc
        _raise_for_status(response)

    async def is_healthy(self) -> bool:
        """Say whether the engine answers its health check."""
        try:
            response = await self._http.get("/health", timeout=5.0)
        except httpx.HTTPError:
            return False
        return response.status_code == 200


_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"?')


def _encoded(payload: Mapping[str, Any]) -> bytes:
    """Return the payload as JSON.

    Raises:
        EngineRefused: for what Python's parser lets in and JSON cannot hold: NaN, infinities, half a surrogate pair.
    """
    try:
        return json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as exc:
        raise EngineRefused("the request holds a number or a character that JSON cannot carry") from exc


def _json_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {"content-type": "application/json", "accept-encoding": "identity", **(headers or {})}


def parse_answers(text: str) -> list[str]:
    """Return the answers in a JSON string, or in ``{"answers": ["…"]}``, also when the text was cut.

    Of a string that was cut, the last word is left out, since it may be half a word. Any other JSON holds no
    answers.
    """
    try:
        value = json.loads(text)
    except ValueError:
        return _parse_cut(text)
    answers = value.get("answers") if isinstance(value, dict) else [value]
    found = answers if isinstance(answers, list) else []
    return [stripped for answer in found if isinstance(answer, str) and (stripped := answer.strip())]


def _parse_cut(text: str) -> list[str]:
    head, _, body = text.partition("[")
    if text.lstrip().startswith('"'):
        body = text
    elif '"answers"' not in head:
        return []
    found = []
    for match in _STRING.finditer(body):
        is_whole = match[0].endswith('"') and len(match[0]) > 1
        content = match[1] if is_whole else match[1].rpartition(" ")[0]
        if (answer := _unescaped(content)) is not None:
            found.append(answer)
    return found


def _unescaped(content: str) -> str | None:
    try:
        return str(json.loads(f'"{content}"', strict=False)).strip() or None
    except ValueError:
        return None


def _content(choice: Any) -> str:
    message = choice.get("message") if isinstance(choice, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _choices_checked(response: httpx.Response) -> dict[str, Any]:
    try:
        value = response.json()
    except ValueError as exc:
        raise EngineAnswerUnusable("the engine's answer is not JSON") from exc
    if not isinstance(value, dict) or not isinstance(value.get("choices"), list):
        raise EngineAnswerUnusable("the engine's answer has no choices", field="choices")
    return value


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """Yield lines as they come: events are UTF-8 and their lines end with LF, which spares httpx's decoders."""
    rest = b""
    try:
        async for piece in response.aiter_raw():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line.rstrip(b"\r").decode(errors="replace")
    except httpx.HTTPError as exc:
        raise _translated(exc) from exc
    if rest:
        yield rest.decode(errors="replace")


def _translated(error: httpx.HTTPError) -> EngineCallError:
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return EngineTimeout()
    return EngineUnavailable(f"the engine did not answer: {type(error).__name__}")


def _raise_for_status(response: httpx.Response) -> None:
    status = response.status_code
    if status < 400:
        return
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
    """Read the reason from OpenAI's error shape or from problem details."""
    try:
        value = response.json()
    except ValueError:
        value = {}
    error = value.get("error", value) if isinstance(value, dict) else {}
    reason = (error.get("message") or error.get("detail")) if isinstance(error, dict) else error
    text = str(reason or f"status {response.status_code}")
    return _VERSION_ID.sub("the adapter", text)[:500]
