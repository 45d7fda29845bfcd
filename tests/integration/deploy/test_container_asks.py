"""Whoever is on call asks an engine where it runs, and needs neither its token nor a way to its port."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from tests.support.registry_server import serving

TOKEN = "engine-token-for-tests"


async def answer(request: Request) -> JSONResponse:
    """What was asked, to whoever has the token; a stand-in, for only the way to it is looked at here."""
    status = 200 if request.headers.get("authorization") == f"Bearer {TOKEN}" else 401
    said = {"method": request.method, "path": request.url.path, "query": request.url.query}
    return JSONResponse(said, status_code=503 if request.url.path == "/lorry/ready" else status)


@pytest.fixture
async def port() -> AsyncIterator[str]:
    app = FastAPI()
    app.add_api_route("/{path:path}", answer, methods=["GET", "POST"], response_model=None)
    async with serving(app) as url:
        yield str(urlsplit(url).port)


async def ask(port: str, *arguments: str, token: str = TOKEN) -> tuple[int | None, str, str]:
    settings = {
        "LORRY_ROLE": "engine",
        "LORRY_BASE_DIRECTORY": ".",
        "LORRY_ENGINE_TOKEN": token,
        "LORRY_ENGINE_PORT": port,
        "LORRY_REGISTRY_URL": "http://127.0.0.1:1",
        "LORRY_REGISTRY_ENGINE_TOKEN": "x" * 16,
        "LORRY_ADAPTER_CACHE_DIRECTORY": ".",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lorry.container", "ask", *arguments),
        env={**os.environ, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_an_engines_answer_is_printed(port: str) -> None:
    code, out, err = await ask(port, "/lorry/adapters?tier=host")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"method": "GET", "path": "/lorry/adapters", "query": "tier=host"}
    code, out, _ = await ask(port, "/lorry/adapters/v1/unpin", "--post")
    assert (code, json.loads(out)["method"]) == (0, "POST")


async def test_what_it_says_beside_a_refusal_is_printed_too(port: str) -> None:
    code, out, err = await ask(port, "/lorry/ready")
    assert (code, json.loads(out)["path"]) == (1, "/lorry/ready")
    assert err == "container: the engine did not answer, or said no\n"
    assert (await ask(port, "/lorry/residency", token="another-token"))[0] == 1
