"""Requests for an engine, sent as a benchmark wants them, and what came of each."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import httpx

from bench.engines import Side
from serving.engine.pool.limits import RequestClass

_TIMEOUT_SECONDS = 900.0
_WORDS = range(1_000, 40_000)  # token ids of plain words in every vocabulary used here


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request: a prompt of random words, and exactly so many tokens of answer."""

    model: str
    prompt_tokens: int
    answer_tokens: int
    seed: int
    kind: RequestClass = "live"
    tenant: str = ""

    def body(self, *, stream: bool) -> dict[str, object]:
        """Return what is sent; no two seeds share a prefix, so that no cache answers for an engine."""
        chosen = random.Random(self.seed)
        return {
            "model": self.model,
            "prompt": [chosen.choice(_WORDS) for _ in range(self.prompt_tokens)],
            "max_tokens": self.answer_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": stream,
        }


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a request, in seconds from when it was sent; `failure` is the status and the reason."""

    ask: Ask
    sent_at: float
    seconds: float
    first_token_seconds: float
    failure: str | None = None


class Caller:
    """A connection pool to one engine; use it as an async context manager."""

    def __init__(self, side: Side) -> None:
        self._side = side
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=2.0)
        self._client = httpx.AsyncClient(
            base_url=side.url, headers=side.headers, timeout=_TIMEOUT_SECONDS, trust_env=False, limits=limits
        )

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(self, ask: Ask, *, stream: bool = False) -> Answer:
        """Send one request and wait for its last token; a refusal is an answer, too."""
        headers = {"x-lorry-class": ask.kind, **({"x-lorry-tenant": ask.tenant} if ask.tenant else {})}
        body, sent = ask.body(stream=stream), time.perf_counter()
        first, failure = 0.0, None
        try:
            async with self._client.stream("POST", "/v1/completions", json=body, headers=headers) as response:
                async for piece in response.aiter_bytes():
                    first = first or time.perf_counter() - sent
                    if response.status_code != 200:
                        failure = f"{response.status_code} {_reason(piece)}"
        except httpx.HTTPError as exc:
            failure = f"{type(exc).__name__} {exc}"
        seconds = time.perf_counter() - sent
        return Answer(ask=ask, sent_at=sent, seconds=seconds, first_token_seconds=first, failure=failure)


async def burst(caller: Caller, asks: Iterable[Ask]) -> list[Answer]:
    """Send everything at once, in order."""
    return list(await asyncio.gather(*(caller.ask(ask) for ask in asks)))


async def keep_up(
    caller: Caller, *, callers: int, next_ask: Callable[[], Ask | None], into: list[Answer] | None = None
) -> list[Answer]:
    """Let `callers` ask one request after the other until there is none left; answers are also added to `into`."""
    answers: list[Answer] = [] if into is None else into

    async def one() -> None:
        while (ask := next_ask()) is not None:
            answers.append(await caller.ask(ask))

    await asyncio.gather(*(one() for _ in range(callers)))
    return answers


def require_answers(answers: Iterable[Answer]) -> None:
    """Refuse a measurement in which a request failed.

    Raises:
        RuntimeError: with the first failure.
    """
    for answer in answers:
        if answer.failure is not None:
            raise RuntimeError(f"a request failed, so nothing was measured: {answer.failure}")


def at_quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def _reason(piece: bytes) -> str:
    try:
        return str(json.loads(piece)["error"]["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return repr(piece[:200])
