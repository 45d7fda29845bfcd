"""docs/engine.md leaves out no route and no metric of the engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry

from serving.engine.api import Api
from serving.engine.metrics import EngineMetrics

PAGE = (Path(__file__).parents[4] / "docs" / "engine.md").read_text()


async def ready() -> JSONResponse:
    return JSONResponse({})


@pytest.mark.parametrize("path", sorted({route.path for route in Api(ready=ready).router().routes}))  # type: ignore[attr-defined]
def test_every_route_is_on_the_page(path: str) -> None:
    assert path in PAGE


def test_every_metric_is_on_the_page() -> None:
    registry = CollectorRegistry()
    EngineMetrics(registry)
    for metric in registry.collect():
        assert f"`{metric.name}" in PAGE, f"docs/engine.md leaves out {metric.name}"
