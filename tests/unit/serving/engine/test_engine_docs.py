"""docs/engine.md leaves out no route and no metric of the engine."""

from __future__ import annotations

import re
from operator import attrgetter
from pathlib import Path

import pytest
from fastapi.responses import JSONResponse
from prometheus_client import Metric

from serving.engine.api import Api
from tests.support.engine_metrics import engine_metrics

PAGE = (Path(__file__).parents[4] / "docs" / "engine.md").read_text()


async def ready() -> JSONResponse:
    return JSONResponse({})


@pytest.mark.parametrize("path", sorted({route.path for route in Api(ready=ready).router().routes}))  # type: ignore[attr-defined]
def test_every_route_is_on_the_page(path: str) -> None:
    assert path in PAGE


@pytest.mark.parametrize("metric", sorted(engine_metrics().collect(), key=attrgetter("name")), ids=attrgetter("name"))
def test_every_metric_is_on_the_page_with_what_its_labels_may_be(metric: Metric) -> None:
    assert f"`{metric.name}" in PAGE
    for label, value in {pair for sample in metric.samples for pair in sample.labels.items()}:
        assert label == "le" or re.search(rf"\b{value}\b", PAGE), (label, value)
