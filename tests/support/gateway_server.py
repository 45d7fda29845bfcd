"""A gateway over real HTTP, in this process, before a real registry and an engine that speaks the engine's protocol."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import SecretStr

from kit.database import Database
from kit.settings import DatabaseSettings
from kit.tls import authorities
from registry.client import RegistryClient, draft_from_directory
from registry.manifest import DEFAULT_ADAPTER, LIVE, BaseIdentity, Manifest, Owner
from serving.gateway.app import create_app
from serving.gateway.keys import create_api_key
from serving.gateway.settings import GatewaySettings
from tests.support.adapters import BASE, write_adapter
from tests.support.registry_server import TOKEN, serving
from training.jobs.settings import TrainingServiceSettings
from training.service.app import create_app as create_training_service
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript, Turn

ENGINE_TOKEN = "engine-token-for-tests"
TRAINING_TOKEN = "training-token-for-tests"


@dataclass
class StandInEngine:
    """Answers chat completions as vLLM does, in microseconds: what was asked, or what `answer` makes of it.

    A stand-in because a real engine takes a minute to start; the end-to-end test has the real one. What `serves` says
    no to is refused as adapters of other bases are, and noted in `misled`.
    """

    answer: Callable[[dict[str, Any]], str] = lambda body: f"you said {body['messages'][-1]['content']}"
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hints: list[tuple[str, str]] = field(default_factory=list)
    word: Callable[[int], str] = lambda number: f"word{number} "
    refuse_with: tuple[int, str] | None = None
    retry_after: str | None = None
    seconds_between_events: float = 0.0
    goes_on: asyncio.Semaphore | None = None  # before each next event
    events: int = 3
    break_off_after: int | None = None
    running: int = 0
    closed_early: int = 0
    is_down: bool = False
    serves: Callable[[str], bool] = lambda model: True
    misled: list[str] = field(default_factory=list)

    def app(self) -> FastAPI:
        """The engine's open routes."""
        app = FastAPI()
        app.add_api_route("/v1/chat/completions", self.chat, methods=["POST"], response_model=None)
        app.add_api_route("/lorry/adapters/{version_id}/prefetch", self.prefetch, methods=["POST"])
        app.add_api_route("/health", self.health, methods=["GET"])
        return app

    async def health(self) -> JSONResponse:
        return JSONResponse({}, status_code=503 if self.is_down else 200)

    async def prefetch(self, version_id: str, request: Request) -> dict[str, str]:
        self.hints.append((version_id, (await request.json())["class"]))
        return {"state": "loading"}

    async def chat(self, request: Request) -> JSONResponse | StreamingResponse:
        if request.headers.get("authorization") != f"Bearer {ENGINE_TOKEN}":
            return JSONResponse({"error": {"message": "A valid bearer token is required."}}, status_code=401)
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        if not self.serves(body["model"]):
            self.misled.append(body["model"])
            error = {"message": "The adapter was made for another base model.", "type": "BaseModelMismatch"}
            return JSONResponse({"error": {**error, "param": "model", "code": 409}}, status_code=409)
        if self.refuse_with:
            status, message = self.refuse_with
            return JSONResponse(
                {"error": {"message": message, "type": "BadRequest", "code": status}},
                status_code=status,
                headers={} if self.retry_after is None else {"retry-after": self.retry_after},
            )
        if body.get("stream"):
            return StreamingResponse(self.stream(body), media_type="text/event-stream")
        return await self.whole(request, body)

    async def whole(self, request: Request, body: dict[str, Any]) -> JSONResponse:
        self.running += 1
        try:
            began = time.monotonic()
            while time.monotonic() - began < self.seconds_between_events:  # which a test may shorten meanwhile
                if await request.is_disconnected():
                    self.closed_early += 1
                    break
                await asyncio.sleep(0.01)
        finally:
            self.running -= 1
        text = self.answer(body)
        reason = "length" if len(text) > 4 * body.get("max_tokens", 1000) else "stop"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
        choices = [{"index": index, **choice} for index in range(body.get("n", 1))]
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        return JSONResponse(
            {
                "id": "c1",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": choices,
                "usage": usage,
            }
        )

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        self.running += 1
        sent = 0
        try:
            while sent < self.events:
                if sent == self.break_off_after:
                    raise ConnectionError("the engine died")
                delta = {"content": self.word(sent)}
                choices = [{"index": 0, "delta": delta, "finish_reason": None}]
                chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
                yield f"data: {json.dumps({**chunk, 'choices': choices})}\n\n"
                sent += 1
                if self.goes_on is not None:
                    await self.goes_on.acquire()
                await asyncio.sleep(self.seconds_between_events)
            if (body.get("stream_options") or {}).get("include_usage"):
                usage = {"prompt_tokens": 1, "completion_tokens": sent, "total_tokens": 1 + sent}
                last = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
                yield f"data: {json.dumps({**last, 'choices': [], 'usage': usage})}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            self.running -= 1
            self.closed_early += sent < self.events


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A running gateway and what a test needs beside it."""

    url: str
    key: str
    other_key: str
    database: Database
    registry: RegistryClient
    directory: Path

    async def publish(
        self, user: str, *, seed: int = 1, tenant: str = "default", live: bool = True, base: BaseIdentity = BASE
    ) -> Manifest:
        """Publish a small adapter of `user`; `seed` makes its content."""
        owner = Owner(tenant=tenant, user=user)
        directory = write_adapter(self.directory / f"{tenant}-{user}-{seed}", seed=seed)
        manifest = await self.registry.publish(directory, draft=draft_from_directory(directory, owner=owner, base=base))
        if live:
            held = await self.registry.get_alias(owner, DEFAULT_ADAPTER, LIVE)
            await self.registry.move_alias(
                owner, DEFAULT_ADAPTER, LIVE, version_id=manifest.version_id, expected_version_id=held
            )
        return manifest

    async def say(self, user: str, *texts: str, tenant: str = "default") -> Transcript:
        """Let a user have said something."""
        turns = tuple(
            Turn(role="user", text=text, time=datetime(2020, 1, 1, 12, tzinfo=UTC) + timedelta(minutes=index))
            for index, text in enumerate(texts)
        )
        transcript = Transcript(turns=turns, source_format="test")
        async with self.database.transaction() as session:
            await TranscriptStore(session).add(tenant, user, [transcript])
        return transcript

    async def make_key(self, *scopes: str, tenant: str = "default") -> str:
        """Make another key, with these scopes alone."""
        async with self.database.transaction() as session:
            return await create_api_key(session, tenant, scopes=scopes)

    def caller(self, key: str | None = None) -> httpx.AsyncClient:
        """A caller with a key; that of tenant `default` when none is given."""
        headers = {"authorization": f"Bearer {key or self.key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30, verify=authorities(), trust_env=False)


@pytest.fixture
def stand_in() -> StandInEngine:
    """This test's engine."""
    return StandInEngine()


@pytest.fixture
async def engine_url(stand_in: StandInEngine) -> AsyncIterator[str]:
    """Where this test's engine listens."""
    async with serving(stand_in.app()) as url:
        yield url


@pytest.fixture
async def training_url(database_settings: DatabaseSettings) -> AsyncIterator[str]:
    """Where this test's training service listens; no worker is needed to ask for trainings."""
    settings = TrainingServiceSettings(
        **database_settings.model_dump(), training_token=SecretStr(TRAINING_TOKEN), training_events_seconds=0.05
    )
    async with serving(create_training_service(settings)) as url:
        yield url


@pytest.fixture
def gateway_settings(
    database_settings: DatabaseSettings, registry_url: str, engine_url: str, training_url: str
) -> GatewaySettings:
    """The settings of this test's gateway: nothing is remembered, so that tests see every move at once."""
    return GatewaySettings(
        **database_settings.model_dump(),
        registry_url=registry_url,
        registry_token=SecretStr(TOKEN),
        engine_url=engine_url,
        engine_token=SecretStr(ENGINE_TOKEN),
        gateway_cache_seconds=0,
        gateway_stale_seconds=0,
        gateway_max_request_bytes=100_000,
        gateway_requests_per_second=100_000,
        gateway_burst=1_000_000,
        gateway_usage_seconds=0.05,
        gateway_notice_seconds=0,
        gateway_copies_seconds=1.0,
        training_url=training_url,
        training_token=SecretStr(TRAINING_TOKEN),
    )


@pytest.fixture
async def gateway(
    gateway_settings: GatewaySettings, database: Database, client: RegistryClient, tmp_path: Path
) -> AsyncIterator[Gateway]:
    """A gateway with a key of tenant `default` and one of tenant `other`."""
    async with database.transaction() as session:
        key = await create_api_key(session, "default")
        other_key = await create_api_key(session, "other")
    async with serving(create_app(gateway_settings)) as url:
        yield Gateway(url=url, key=key, other_key=other_key, database=database, registry=client, directory=tmp_path)
