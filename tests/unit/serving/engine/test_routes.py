"""What the endpoint plugin refuses before the engine serves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.config import ParallelConfig

from serving.engine.routes import refuse_several
from serving.errors import EngineMisconfigured


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
