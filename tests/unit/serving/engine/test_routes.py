"""What the endpoint plugin refuses before the engine serves, and when the engine is ready."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from vllm.config import ParallelConfig
from vllm.v1.engine.exceptions import EngineDeadError

from kit.errors import LorryError
from serving.engine.door import Door
from serving.engine.guard import Guard
from serving.engine.priority import Priority
from serving.engine.resolver import RegistryResolver
from serving.engine.routes import LorryRoutes, refuse_several
from serving.engine.settings import EngineSettings
from serving.errors import EngineMisconfigured, EngineOutOfTouch


def engine(**parallel: Any) -> Any:
    config = ParallelConfig()
    for name, value in parallel.items():
        assert hasattr(config, name), "vLLM calls it otherwise now"
        object.__setattr__(config, name, value)
    return SimpleNamespace(vllm_config=SimpleNamespace(parallel_config=config))


def test_one_api_server_with_one_engine_is_let_through() -> None:
    refuse_several(engine(tensor_parallel_size=2))


@pytest.mark.parametrize(
    ("parallel", "reason"),
    [
        ({"data_parallel_size": 2}, "idle rank"),
        ({"_api_process_count": 2}, "one API server"),
        ({"pipeline_parallel_size": 2}, "Pipelines"),
        ({"nnodes": 2}, "several nodes"),
    ],
)
def test_several_of_anything_are_refused_however_vllm_was_told(parallel: dict[str, int], reason: str) -> None:
    with pytest.raises(EngineMisconfigured, match=reason):
        refuse_several(engine(**parallel))


@pytest.mark.parametrize(
    ("middleware", "is_refused"),
    [
        ([Guard, Door, Priority, CORSMiddleware], False),
        ([CORSMiddleware, Guard, Door, Priority], True),  # as a variable of the environment may have it
        ([Guard], True),
        ([Door, Guard, Priority], True),
        ([], True),
    ],
)
def test_nothing_comes_before_the_guard_and_nobody_past_the_door(
    middleware: list[Any], is_refused: bool, tmp_path: Path
) -> None:
    app = FastAPI(middleware=[Middleware(each) for each in middleware])
    routes = Running(tmp_path).routes
    routes.attach_router(app)
    with pytest.raises(EngineMisconfigured, match="guard, door and priority") if is_refused else nullcontext():
        routes._refuse_unguarded()


class Running:
    """Everything that readiness looks at, in an engine that is ready."""

    def __init__(self, cache: Path) -> None:
        self.closed: LorryError | None = None
        self.resolver = RegistryResolver()
        self.resolver.connect(object())  # type: ignore[arg-type]
        self.models = SimpleNamespace(lora_resolvers=[self.resolver])
        self.steward = SimpleNamespace(draining=False)
        self.is_dead = False
        self.routes = LorryRoutes(
            EngineSettings(
                base_directory=Path("/models/base"),
                engine_token="engine-token",
                registry_url="http://registry",
                registry_engine_token="registry-token",
                adapter_cache_directory=cache,
            )
        )
        self.routes._engine = self  # type: ignore[assignment]
        self.routes._models = self.models  # type: ignore[assignment]
        self.routes._directory = SimpleNamespace(closed_because=lambda: self.closed)  # type: ignore[assignment]
        self.routes._steward = self.steward  # type: ignore[assignment]

    async def check_health(self) -> None:
        if self.is_dead:
            raise EngineDeadError

    async def answer(self) -> tuple[int, str]:
        answer = await self.routes.ready()
        assert ("retry-after" in answer.headers) == (answer.status_code == 503)
        return answer.status_code, json.loads(bytes(answer.body)).get("detail", "")


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(tmp_path)


async def test_an_engine_is_ready_when_adapters_are_served(running: Running) -> None:
    assert await running.answer() == (200, "")


@pytest.mark.parametrize("resolvers", ["none", "another", "one that knows no registry"])
async def test_an_engine_without_our_resolver_is_not_ready(running: Running, resolvers: str) -> None:
    running.models.lora_resolvers = {"none": [], "another": [object()]}.get(resolvers, [RegistryResolver()])
    assert await running.answer() == (503, "The registry's resolver is not connected.")


async def test_an_engine_that_serves_no_adapter_is_not_ready_and_says_why(running: Running) -> None:
    running.closed = EngineOutOfTouch()
    assert await running.answer() == (503, EngineOutOfTouch().message)
    running.closed, running.steward.draining = None, True
    assert await running.answer() == (503, "The engine is being drained.")
    running.steward.draining, running.is_dead = False, True
    assert await running.answer() == (503, "The engine core is dead.")
    running.routes._directory = None
    assert await running.answer() == (503, "The engine is still starting.")
