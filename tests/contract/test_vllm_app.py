"""vLLM's own app, built as its server builds it, with our middleware and plugin: what is in front, and what is open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route
from vllm.entrypoints.launchers.app import build_app
from vllm.utils.argparse_utils import FlexibleArgumentParser

from serving.engine.door import Door
from serving.engine.guard import Guard
from serving.engine.launch import Launch, plan_launch
from serving.engine.priority import Priority
from serving.engine.routes import LorryRoutes
from serving.engine.settings import EngineSettings, process_settings

try:
    from vllm.entrypoints.common.cli_args import make_arg_parser
except ImportError:  # until 0.32
    from vllm.entrypoints.launchers.cli_args import make_arg_parser

TOKEN = {"authorization": "Bearer engine-token"}
PUBLIC = {(method, path) for method in ("GET", "HEAD") for path in ("/health", "/metrics")}
OPEN = PUBLIC | {("POST", "/v1/chat/completions"), ("POST", "/v1/completions")}


def launch() -> Launch:
    settings = EngineSettings(
        base_directory="/models/base",
        engine_token="engine-token",
        registry_url="http://127.0.0.1:8200",
        registry_engine_token="registry-token",
        adapter_cache_directory="/cache",
    )
    return plan_launch(settings, inherited={})


@pytest.fixture(scope="module")
def app() -> Iterator[FastAPI]:
    planned = launch()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in planned.environment.items():
            patch.setenv(name, value)
        process_settings.cache_clear()
        arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(list(planned.arguments[3:]))
        yield build_app(arguments, ("generate",))
        process_settings.cache_clear()


@pytest.fixture
async def outside(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        yield client


def doors(app: FastAPI) -> set[tuple[str, str]]:
    """Every route of the app, with something in the place of what a path leaves open."""
    routes = [route for route in app.routes if isinstance(route, Route)]
    return {
        (method, "".join("v" if part.startswith("{") else part for part in _parts(route.path)))
        for route in routes
        for method in route.methods or ()
    }


def _parts(path: str) -> Iterator[str]:
    for part in path.split("/")[1:]:
        yield "/"
        yield part


def test_vllm_puts_our_middleware_in_front_of_its_own_and_takes_our_routes(app: FastAPI) -> None:
    assert [middleware.cls for middleware in app.user_middleware[:3]] == [Guard, Door, Priority]
    assert len(app.user_middleware) > 3
    assert ("POST", "/lorry/adapters/v/erase") in doors(app)
    routes = LorryRoutes(process_settings())
    routes._app = app
    routes._refuse_unguarded()


async def test_nothing_that_vllm_offers_answers_without_the_token(app: FastAPI, outside: httpx.AsyncClient) -> None:
    asked = doors(app) - PUBLIC
    assert len(asked) > 30
    for method, path in sorted(asked):
        answer = await outside.request(method, path, json={"model": "base"})
        assert answer.status_code == 401, (method, path)


async def test_what_is_not_on_the_list_is_closed_with_the_token_as_well(
    app: FastAPI, outside: httpx.AsyncClient
) -> None:
    closed = {door for door in doors(app) - OPEN if not door[1].startswith("/lorry/")}
    assert {("POST", "/v1/load_lora_adapter"), ("POST", "/tokenize"), ("POST", "/invocations")} <= closed
    for method, path in sorted(closed):
        for spelled in (path, f"{path}/", f"/{path}"):
            answer = await outside.request(method, spelled, json={"model": "base"}, headers=TOKEN)
            assert answer.status_code == 404, (method, spelled)
            assert answer.json()["error"]["message"] == "There is no such route.", (method, spelled)
