"""The engine, as the gateway and extraction call it: OpenAI's chat protocol, one adapter version a request.

Every failure is one of `EngineCallError`'s branch (`engine_answer`). Version ids are opaque and stay inside: a message
that the engine returns is passed on with the id left out.
"""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from kit.tls import authorities
from registry.manifest import Manifest
from serving.errors import BaseWithoutEngine, EngineCallError, EngineRefused
from serving.extraction.engine_answer import choices_checked, raise_for_status
from serving.extraction.engine_stream import EngineStream, translated

_CHAT = "/v1/chat/completions"
# A load balancer before several engines keeps an adapter's requests together by this header.
_AFFINITY_HEADER = "x-lorry-adapter"
_CLASS_HEADER = "x-lorry-class"
_TENANT_HEADER = "x-lorry-tenant"
_DIGEST_DIGITS = 32
# The engine's server closes connections that are idle for 5 seconds: one that is about to be closed must not be reused.
_IDLE_SECONDS = 2.0
_SOON = httpx.Timeout(5.0)

Ending = Literal["answered", "refused", "other_base", "failed"]
"""How a call ends: `refused` = the engine says no, `other_base` = because it serves another base, `failed` = anything
else that is no answer."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What was sampled: the raw texts, and how many tokens their prompt had (None when the engine did not say)."""

    texts: tuple[str, ...]
    prompt_tokens: int | None


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
        on_end: Callable[[Ending], None] | None = None,
    ) -> None:
        """Prepare a client.

        Args:
            url: base URL of the engine.
            token: the engine's internal bearer token.
            timeout_seconds: longest silence of the engine, before and within an answer.
            max_connections: requests in flight at once.
            transport: how to connect, for tests; None = the network, proxies of the environment ignored.
            on_end: told how each chat completion ended; of a streamed one, how it began.
        """
        self._on_end = on_end or _nobody_listens
        # httpx's client above the transport would take 160 us more for each request, a quarter of the gateway's whole
        # way to the engine, and bring cookies from one tenant's requests to the next one's.
        self._transport = transport or _network(max_connections)
        self._url = url.rstrip("/")
        self._chat_url = httpx.URL(self._url + _CHAT)
        self._timeout = httpx.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds))
        self._authorization = f"Bearer {token}"
        self._key = token.encode()

    def headers(self, manifest: Manifest, *, kind: Literal["live", "batch"]) -> dict[str, str]:
        """Return what the engine is told beside a request for a version.

        Its class decides who goes first, and its tenant is told so that tenants take turns. Its adapter is told for
        load balancers: the same for every version, so that a new one comes to the engine where the old one gives up its
        room. Both are keyed digests, the same from every gateway that has the engine's token, from which nobody else
        learns or guesses a name.
        """
        owner = manifest.owner
        adapter = self._digest("adapter", owner.tenant, owner.user, manifest.adapter)
        return {_AFFINITY_HEADER: adapter, **self.base_headers(owner.tenant, kind=kind)}

    def base_headers(self, tenant: str, *, kind: Literal["live", "batch"]) -> dict[str, str]:
        """Return what the engine is told beside a request for the base model, which any engine can answer."""
        return {_CLASS_HEADER: kind, _TENANT_HEADER: self._digest("tenant", tenant)}

    def _digest(self, *names: str) -> str:
        """Return a digest of names, none of which can hold the character between them."""
        return hmac.digest(self._key, "/".join(names).encode(), "sha256").hex()[:_DIGEST_DIGITS]

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    async def chat(self, payload: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the engine's answer to one chat completion that is not streamed.

        Raises:
            EngineRefused: with the engine's own status, when it says no; details hold `retry_after_seconds` when it
                said when to come back.
            BaseWithoutEngine: when it says no because it serves another base than the adapter's.
            EngineTimeout: when it is silent for too long.
            EngineUnavailable: when it cannot be reached, breaks off, or fails.
            EngineAnswerUnusable: when its answer has no choices.
        """
        asked = self._post(self._chat_url, payload, headers)
        with self._told_the_end():
            response = await self._whole(asked)
            raise_for_status(response)
            answer = choices_checked(response)
        return answer

    @asynccontextmanager
    async def stream(
        self, payload: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[EngineStream]:
        """Open a streamed chat completion and yield its events; leaving the block early ends the engine's work on it.

        Raises:
            EngineCallError: as `chat` does, when the engine does not begin to answer. What breaks off later
                rises from the events.
        """
        asked = self._post(self._chat_url, payload, headers)
        with self._told_the_end():
            response = await self._opened(asked)
        try:
            async with aclosing(response):
                stream = EngineStream(response.aiter_raw())
                yield stream
                await stream.finish()
        except httpx.HTTPError as exc:
            raise translated(exc) from exc

    async def _opened(self, request: httpx.Request) -> httpx.Response:
        """Return an answer that has begun and is none of the engine's refusals; the caller closes it."""
        try:
            response = await self._transport.handle_async_request(request)
            if response.status_code >= 400:
                async with aclosing(response):
                    await response.aread()
                raise_for_status(response)
        except httpx.HTTPError as exc:
            raise translated(exc) from exc
        return response

    async def _whole(self, request: httpx.Request) -> httpx.Response:
        """Return an answer that was read to its end, whatever it says."""
        try:
            response = await self._transport.handle_async_request(request)
            async with aclosing(response):
                await response.aread()
        except httpx.HTTPError as exc:
            raise translated(exc) from exc
        return response

    def _post(
        self,
        url: httpx.URL,
        payload: Mapping[str, Any],
        headers: Mapping[str, str] | None,
        *,
        timeout: httpx.Timeout | None = None,
    ) -> httpx.Request:
        return httpx.Request(
            "POST",
            url,
            headers={
                "authorization": self._authorization,
                "content-type": "application/json",
                "accept-encoding": "identity",
                **(headers or {}),
            },
            content=_encoded(payload),
            extensions={"timeout": (timeout or self._timeout).as_dict()},
        )

    @contextmanager
    def _told_the_end(self) -> Iterator[None]:
        """Tell how the block ended; one that was cancelled has no end."""
        try:
            yield
        except EngineCallError as exc:
            self._on_end(_ending(exc))
            raise
        self._on_end("answered")

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
    ) -> Sampled:
        """Ask one question of one adapter, `samples` times, as batch work; `schema` shapes the texts.

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
        usage = answer.get("usage")
        tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return Sampled(
            texts=tuple(_content(choice) for choice in answer["choices"]),
            prompt_tokens=tokens if isinstance(tokens, int) and tokens > 0 else None,
        )

    async def score(
        self, question: str, answer: str, *, manifest: Manifest, model: str, prompt_tokens: int
    ) -> list[float]:
        """Return the log-probability of each token of an answer to a question, in nats, as batch work.

        Args:
            question: what was asked.
            answer: what is to be scored; nothing is generated but one token that is thrown away.
            manifest: the version whose engine is asked, so that both models are asked of the same one.
            model: what the engine calls the model: the version's id, or the base's name.
            prompt_tokens: tokens of the question with the chat template around it, as `ask` counted them.

        Returns:
            One value for each token; none when the engine gave no log-probabilities, or could not be understood.
        """
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        scored = await self.chat(
            {
                "model": model,
                "messages": messages,
                "add_generation_prompt": False,
                "continue_final_message": True,
                "prompt_logprobs": 0,
                "max_tokens": 1,
                "temperature": 0,
            },
            headers=self.headers(manifest, kind="batch"),
        )
        tokens = scored.get("prompt_logprobs")
        return _log_probabilities(tokens[prompt_tokens:]) if isinstance(tokens, list) else []

    async def prefetch(self, manifest: Manifest, *, kind: Literal["live", "batch"]) -> None:
        """Tell the engine that requests for a version are about to come; it brings the adapter in the background.

        Raises:
            EngineCallError: as `chat` does.
        """
        url = httpx.URL(f"{self._url}/lorry/adapters/{manifest.version_id}/prefetch")
        asked = self._post(url, {"class": kind}, self.headers(manifest, kind=kind), timeout=_SOON)
        raise_for_status(await self._whole(asked))

    async def is_healthy(self) -> bool:
        """Say whether the engine answers its health check."""
        headers = {"authorization": self._authorization}
        asked = httpx.Request("GET", f"{self._url}/health", headers=headers, extensions={"timeout": _SOON.as_dict()})
        try:
            return (await self._whole(asked)).status_code == 200
        except EngineCallError:
            return False


def _network(max_connections: int) -> httpx.AsyncHTTPTransport:
    limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=64, keepalive_expiry=_IDLE_SECONDS)
    return httpx.AsyncHTTPTransport(limits=limits, verify=authorities(), trust_env=False)


def _nobody_listens(ending: Ending) -> None:
    pass


def _ending(error: EngineCallError) -> Ending:
    if isinstance(error, BaseWithoutEngine):
        return "other_base"
    return "refused" if isinstance(error, EngineRefused) else "failed"


def _encoded(payload: Mapping[str, Any]) -> bytes:
    """Return the payload as JSON.

    Raises:
        EngineRefused: for what Python's parser lets in and JSON cannot hold: NaN, infinities, half a surrogate pair.
    """
    try:
        return json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as exc:
        raise EngineRefused("the request holds a number or a character that JSON cannot carry") from exc


def _content(choice: Any) -> str:
    message = choice.get("message") if isinstance(choice, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _log_probabilities(tokens: list[Any]) -> list[float]:
    """Read vLLM's form: for each token an object that maps its id to an object with `logprob`."""
    found = []
    for token in tokens:
        entries = list(token.values()) if isinstance(token, dict) else []
        value = entries[0].get("logprob") if entries and isinstance(entries[0], dict) else None
        if not isinstance(value, int | float) or not math.isfinite(value):
            return []
        found.append(float(value))
    return found
