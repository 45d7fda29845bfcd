from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from pydantic import ValidationError

from serving.errors import EngineUnavailable, UnknownModel
from serving.gateway.adapters import parse_model
from serving.gateway.schemas import ChatRequest
from serving.gateway.upstream import events

VERSION_ID = "v" + "a" * 32


async def collected(*lines: str | Exception) -> list[str]:
    async def source() -> AsyncIterator[str]:
        for line in lines:
            if isinstance(line, Exception):
                raise line
            yield line

    return [event async for event in events(source(), model="users/ann")]


async def test_every_event_names_the_callers_model_and_nothing_else_changes() -> None:
    chunk = {"id": "c", "model": VERSION_ID, "choices": [{"delta": {"content": "höt\n"}}]}
    first, done = await collected(f"data: {json.dumps(chunk)}", "", ": ping", "data: [DONE]")
    assert json.loads(first.removeprefix("data: ")) == {**chunk, "model": "users/ann"}
    assert first.endswith("\n\n")
    assert done == "data: [DONE]\n\n"


async def test_an_engine_that_breaks_off_ends_the_stream_with_an_error() -> None:
    *_, last = await collected('data: {"model": "x"}', EngineUnavailable("the engine broke off"))
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == "the engine broke off"


def test_the_engine_hears_the_version_and_only_what_it_needs() -> None:
    body = ChatRequest(
        model="users/ann", messages=[{"role": "user", "content": "hi"}], user="ann@example.org", metadata={"a": "b"},
        store=True, max_tokens=5, temperature=None,
    )  # fmt: skip
    assert body.to_engine(VERSION_ID) == {
        "model": VERSION_ID,
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 5,
    }


@pytest.mark.parametrize("field", ["chat_template", "vllm_xargs", "priority", "cache_salt", "prompt_logprobs", "echo"])
def test_what_reaches_beyond_one_request_is_refused(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        ChatRequest.model_validate({"model": "users/a", "messages": [{}], field: 1})


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("users/ann", "users/ann/profile@live"),
        ("users/ann@3", "users/ann/profile@3"),
        ("users/ann/work@candidate", "users/ann/work@candidate"),
        ("users/a:b-c.d_E", "users/a:b-c.d_E/profile@live"),
    ],
)
def test_a_model_names_a_users_adapter_of_the_callers_tenant(model: str, name: str) -> None:
    ref = parse_model(model, tenant="acme")
    assert (str(ref), ref.owner.tenant) == (name, "acme")


@pytest.mark.parametrize("model", ["base", "ann", VERSION_ID, "gpt-4o", "/users/ann", "tenants/x/users/ann"])
def test_what_is_no_users_adapter_is_no_model(model: str) -> None:
    with pytest.raises(UnknownModel, match="users/<user_id>"):
        parse_model(model, tenant="acme")
