"""vLLM's public face, as `serving.engine` uses it: names, signatures, arguments, entry points, loggers.

A failure here means that another vLLM is installed than those that `serving.engine` was written for.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from model_hosting_container_standards.common.fastapi.config import FastAPIEnvVars
from model_hosting_container_standards.sagemaker.config import SageMakerEnvVars
from model_hosting_container_standards.sagemaker.sagemaker_loader import SageMakerFunctionLoader
from starlette.middleware import Middleware
from starlette.requests import Request
from vllm import envs
from vllm.entrypoints.generate.base.serving import GenerateBaseServing
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.serve.sagemaker.api_router import sagemaker_standards_bootstrap
from vllm.exceptions import GracefulHTTPError, VLLMError
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver
from vllm.plugins.endpoint_plugins.interface import EndpointPlugin
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM

from serving.engine.guard import Guard
from serving.engine.launch import _REFUSED_ARGUMENTS, SERVER_MODULE, plan_launch
from serving.engine.priority import PRIORITY_HEADER
from serving.engine.quiet import STREAMING, leave_out_refusals
from serving.engine.resolver import refusal
from serving.engine.routes import LorryRoutes
from serving.engine.settings import EngineSettings
from serving.errors import AdapterClosed, EngineMisconfigured

try:
    from vllm.entrypoints.common.cli_args import make_arg_parser
except ImportError:  # until 0.32
    from vllm.entrypoints.launchers.cli_args import make_arg_parser


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_a_resolver_gets_two_names_and_gives_a_request() -> None:
    assert parameters(LoRAResolver.resolve_lora) == ["self", "base_model_name", "lora_name"]
    request = LoRARequest(lora_name="v", lora_int_id=1, lora_path="/p")
    request.lora_int_id = 7
    assert (request.lora_name, request.lora_int_id, request.lora_path) == ("v", 7, "/p")


def test_the_engine_client_loads_lists_and_tells_its_health() -> None:
    assert parameters(AsyncLLM.add_lora) == ["self", "lora_request"]
    assert parameters(AsyncLLM.list_loras) == ["self"]
    assert parameters(AsyncLLM.check_health) == ["self"]


def test_the_engine_client_ends_requests_and_forgets_adapters() -> None:
    assert parameters(AsyncLLM.generate)[:4] == ["self", "prompt", "sampling_params", "request_id"]
    assert "lora_request" in parameters(AsyncLLM.generate)
    assert parameters(AsyncLLM.abort) == ["self", "request_id", "internal"]
    assert parameters(AsyncLLM.remove_lora) == ["self", "lora_id"]


@pytest.mark.parametrize("handler", [OpenAIServingChat, OpenAIServingCompletion])
def test_every_open_route_generates_through_the_engine_client(handler: type) -> None:
    """`Residents` stands in for that attribute; a handler that kept the method itself would pass it by."""
    source = inspect.getsource(handler)
    assert "self.engine_client.generate(" in source
    assert source.count(".generate(") == source.count("self.engine_client.generate(")


def test_a_refusal_carries_its_status_to_the_client() -> None:
    assert issubclass(GracefulHTTPError, VLLMError)
    assert parameters(GracefulHTTPError) == ["message", "http_status"]


@pytest.mark.parametrize(("name", "handler"), zip(STREAMING, (OpenAIServingChat, OpenAIServingCompletion), strict=True))
def test_what_ends_a_stream_is_logged_where_we_leave_our_refusals_out(
    name: str, handler: type, caplog: pytest.LogCaptureFixture
) -> None:
    module = sys.modules[handler.__module__]
    assert re.search(r'logger\.exception\("Error in .*stream generator\."\)', inspect.getsource(module))
    assert module.logger is logging.getLogger(name)
    leave_out_refusals()
    leave_out_refusals()
    assert len(module.logger.filters) == 1
    module.logger.addHandler(caplog.handler)
    try:
        for error in (refusal(AdapterClosed()), GracefulHTTPError("its own", 400)):
            try:
                raise error
            except GracefulHTTPError:
                module.logger.exception("Error in a stream generator.")
    finally:
        module.logger.removeHandler(caplog.handler)
        module.logger.filters.clear()
    assert {str(record.exc_info[1]) for record in caplog.records if record.exc_info} == {"its own"}


def test_our_routes_are_an_endpoint_plugin() -> None:
    assert isinstance(LorryRoutes(settings()), EndpointPlugin)


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("vllm.general_plugins", "lorry", "serving.engine.plugin:register"),
        ("vllm.endpoint_plugins", "lorry_routes", "serving.engine.routes:LorryRoutes"),
    ],
)
def test_vllm_finds_our_entry_points(group: str, name: str, value: str) -> None:
    assert [point.value for point in entry_points(group=group) if point.name == name] == [value]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_vllm_knows_every_argument_that_we_pass(device: str) -> None:
    arguments = plan_launch(settings(engine_device=device, attention_backend="FLASH_ATTN"), inherited={}).arguments
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(list(arguments[3:]))

    assert parsed.enable_lora is True
    assert parsed.middleware == [
        "serving.engine.priority.Priority",
        "serving.engine.door.Door",
        "serving.engine.guard.Guard",
    ]
    assert parsed.scheduling_policy == "priority"
    assert parsed.worker_extension_cls == "serving.engine.worker.extension.LorryWorker"
    assert parsed.served_model_name == ["base"]
    assert len(parsed.lora_target_modules) == 7
    assert parsed.enable_log_requests is False
    assert parsed.disable_uvicorn_access_log is True


def test_no_variable_puts_code_beside_our_middleware(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """vLLM ends the building of its app with a library that takes middleware and handlers from the environment."""
    (tmp_path / "model.py").write_text("raise RuntimeError('a file that nobody named was run')")
    variables = {value for name, value in vars(FastAPIEnvVars).items() if name.isupper()}
    variables |= {value for name, value in vars(SageMakerEnvVars).items() if name.isupper()}
    assert len(variables) >= 8
    inherited = dict.fromkeys(variables, "model.py:run") | {"SAGEMAKER_MODEL_PATH": str(tmp_path)}
    environment = plan_launch(settings(), inherited=inherited).environment
    assert {name for name in variables if name in environment} == {"SAGEMAKER_MODEL_PATH"}

    monkeypatch.setenv("SAGEMAKER_MODEL_PATH", environment["SAGEMAKER_MODEL_PATH"])
    monkeypatch.setattr(SageMakerFunctionLoader, "_default_function_loader", None)
    app = FastAPI(middleware=[Middleware(Guard, token="engine-token")])
    assert [middleware.cls for middleware in sagemaker_standards_bootstrap(app).user_middleware] == [Guard]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_vllm_knows_every_variable_that_we_set(device: str) -> None:
    environment = plan_launch(settings(engine_device=device), inherited={}).environment
    ours = {name for name in environment if name.startswith("VLLM_")}
    assert ours - envs.environment_variables.keys() == set()
    assert len(ours) >= 4


def test_the_server_that_we_start_is_vllms() -> None:
    module = importlib.import_module(SERVER_MODULE)
    assert callable(module.main)
    assert 'if __name__ == "__main__":' in inspect.getsource(module)


def test_no_other_way_to_write_an_argument_gets_round_what_lorry_sets_and_refuses() -> None:
    """vLLM 0.33 made ``--disable-lora`` of what was ``--no-enable-lora``: any such form is found here."""
    options = make_arg_parser(FlexibleArgumentParser())._option_string_actions
    own = {argument for argument in plan_launch(settings(), inherited={}).arguments if argument.startswith("--")}
    ours = {options[flag].dest for flag in (own | _REFUSED_ARGUMENTS.keys()) if flag in options}
    assert len(ours) > 30
    ways = [option for option, action in options.items() if action.dest in ours]
    assert "--no-enable-lora" in ways
    for way in ways:
        with pytest.raises(EngineMisconfigured, match="is refused"):
            plan_launch(settings(engine_arguments=way), inherited={})


def test_every_argument_that_lorry_refuses_is_one_that_vllm_has() -> None:
    options = make_arg_parser(FlexibleArgumentParser())._option_string_actions
    assert [flag for flag in _REFUSED_ARGUMENTS if not any(option.startswith(flag) for option in options)] == []


async def test_vllm_takes_a_requests_priority_from_the_header_that_we_set() -> None:
    headers = [(PRIORITY_HEADER, b"8640000005000")]
    raw = Request({"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers})
    asked = CompletionRequest(prompt="Hello", priority=-7)

    assert GenerateBaseServing._get_priority(asked, raw) == 8_640_000_005_000


def settings(**changes: Any) -> EngineSettings:
    values: dict[str, Any] = {
        "base_directory": "/models/base",
        "engine_token": "engine-token",
        "registry_url": "http://127.0.0.1:8200",
        "registry_engine_token": "registry-token",
        "adapter_cache_directory": "/cache",
    }
    return EngineSettings(**(values | changes))
