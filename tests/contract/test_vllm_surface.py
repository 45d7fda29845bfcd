"""What of vLLM we build on, as it was when we read it.

A failure here means that another vLLM is installed than the one `serving.engine` was written for: read what changed,
adapt the named file of ours, and only then write down the new digest or signature.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import re
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import pytest
from starlette.requests import Request
from vllm.entrypoints.generate.base.serving import GenerateBaseServing
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.entrypoints.launchers.launcher import serve_http
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.serving import BaseServing
from vllm.entrypoints.serve.middleware.register import init_entrypoints_middleware
from vllm.exceptions import GracefulHTTPError, VLLMError
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver
from vllm.plugins.endpoint_plugins.interface import EndpointPlugin
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.metrics.loggers import PrometheusStatLogger, StatLoggerManager

from serving.engine.launch import plan_launch
from serving.engine.priority import PRIORITY_HEADER
from serving.engine.quiet import STREAMING, leave_out_refusals
from serving.engine.resolver import refusal
from serving.engine.routes import LorryRoutes
from serving.engine.settings import EngineSettings
from serving.errors import AdapterClosed

PRIVATE: dict[str, tuple[Any, str]] = {
    # loader.py takes the place of the first, and of its caller's expectations
    "OpenAIServingModels.resolve_lora": (OpenAIServingModels.resolve_lora, "b9ef864b9ccd3310"),
    "OpenAIServingModels.__init__": (OpenAIServingModels.__init__, "0218cc457c0bbb8b"),
    # residents.py stands in for the first, counts on what it raises and aborts, and on the order of add and abort
    "AsyncLLM.generate": (AsyncLLM.generate, "5bd0ee90459b0e29"),
    "AsyncLLM._add_request": (AsyncLLM._add_request, "588d66be1f23f19b"),
    "AsyncLLM.abort": (AsyncLLM.abort, "1f25d1cf31395eb5"),
    "OutputProcessor.abort_requests": (OutputProcessor.abort_requests, "6dd03abb8ea35e7c"),
    "BaseServing._check_model": (BaseServing._check_model, "5a2f4707ffb7f367"),
    "BaseServing._maybe_get_adapters": (BaseServing._maybe_get_adapters, "c7bc850c2f8df5c3"),
    # stopping.py counts on the engine being shut down first, by this call, while requests still come in
    "AsyncLLM.shutdown": (AsyncLLM.shutdown, "bdbf42b739a6731d"),
    "OutputProcessor.propagate_error": (OutputProcessor.propagate_error, "7acce6170d1783dd"),
    "serve_http": (serve_http, "f471b91743318731"),
    # lora_gauge.py takes a metric out of the loggers that the first makes, and counts on the second to look for it
    "StatLoggerManager.__init__": (StatLoggerManager.__init__, "6e75cf036af8369b"),
    "PrometheusStatLogger.record": (PrometheusStatLogger.record, "a506cbde79285412"),
    # guard.py and routes.py rely on the order in which the app is put together
    "build_app": (build_app, "6438b7e524cb0b4f"),
    "init_entrypoints_middleware": (init_entrypoints_middleware, "583c2958f2eb48d0"),
}


def digest(thing: Any) -> str:
    return hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", PRIVATE)
def test_what_we_replace_is_what_we_read(name: str) -> None:
    thing, known = PRIVATE[name]

    assert digest(thing) == known, f"vLLM's {name} has changed: read it again before trusting serving.engine"


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
