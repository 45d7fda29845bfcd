from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from serving.engine.guard import Guard

TOKEN = "engine-token"
BEARER = {"authorization": f"Bearer {TOKEN}"}


async def behind(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


@pytest.fixture
def client() -> httpx.AsyncClient:
    transport = httpx.ASGITransport(Guard(behind, token=TOKEN))
    return httpx.AsyncClient(transport=transport, base_url="http://engine")


@pytest.mark.parametrize("path", ["/health", "/metrics"])
async def test_health_and_metrics_need_no_token(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).text == "inside"


@pytest.mark.parametrize("path", ["/health", "/metrics"])
async def test_a_probe_may_ask_for_the_head_alone(path: str) -> None:
    seen: list[str] = []

    async def only_get(scope: Scope, receive: Receive, send: Send) -> None:  # as vLLM's health is routed
        seen.append(scope["method"])
        await behind(scope, receive, send)

    transport = httpx.ASGITransport(Guard(only_get, token=TOKEN))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        response = await client.head(path)
        assert (response.status_code, response.content, seen) == (200, b"", ["GET"])
        assert (await client.head("/lorry/ready")).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("GET", "/lorry/ready"),
        ("GET", "/lorry/adapters"),
    ],
)
async def test_open_routes_need_the_token(client: httpx.AsyncClient, method: str, path: str) -> None:
    refused = await client.request(method, path)

    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["error"]["message"] == "A valid bearer token is required."
    assert (await client.request(method, path, headers=BEARER)).text == "inside"


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer ü"]
)
async def test_anything_but_the_token_is_refused(client: httpx.AsyncClient, authorization: str) -> None:
    response = await client.post("/v1/completions", headers={b"authorization": authorization.encode()})

    assert response.status_code == 401


async def test_two_authorization_headers_are_refused(client: httpx.AsyncClient) -> None:
    headers = [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer other")]

    assert (await client.post("/v1/completions", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("POST", "/tokenize"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/chat/completions/batch"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "//v1/chat/completions"),
        ("POST", "/invocations"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/metrics/anything"),
        ("POST", "/health"),
        ("OPTIONS", "/v1/completions"),
        ("GET", "/lorry"),
    ],
)
async def test_every_other_route_is_closed_and_says_so_only_to_who_has_the_token(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    assert (await client.request(method, path)).status_code == 401
    assert (await client.request(method, path, headers=BEARER)).status_code == 404


async def test_websockets_are_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/v1/realtime", "headers": [(b"authorization", f"Bearer {TOKEN}".encode())]}
    await Guard(behind, token=TOKEN)(scope, receive, send)

    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_the_lifespan_passes_through() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def never(*_: Any) -> Any:
        pytest.fail("the guard took part in the lifespan")

    await Guard(app, token=TOKEN)({"type": "lifespan"}, never, never)
    assert seen == ["lifespan"]
