from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from pydantic import ValidationError

from serving.errors import EngineUnavailable, UnknownModel
from serving.gateway.adapters import parse_model
from serving.gateway.chat_stream import Renamer, chunks
from serving.gateway.schemas import ChatRequest
from serving.gateway.upstream import EngineEvents

VERSION_ID = "v" + "a" * 32


async def collected(*told: bytes | Exception) -> list[bytes]:
    async def source() -> AsyncIterator[bytes]:
        for data in told:
            if isinstance(data, Exception):
                raise data
            yield data

    events = EngineEvents(source())
    return [each async for each in chunks(events, theirs=VERSION_ID, ours="users/ann", with_usage=False)]


async def test_every_event_names_the_callers_model_and_nothing_else_changes() -> None:
    chunk = {"id": "c", "model": VERSION_ID, "choices": [{"delta": {"content": "höt\n"}}]}
    first, done = await collected(json.dumps(chunk).encode())
    assert json.loads(first.removeprefix(b"data: ")) == {**chunk, "model": "users/ann"}
    assert first.endswith(b"\n\n")
    assert done == b"data: [DONE]\n\n"


async def test_an_engine_that_breaks_off_ends_the_stream_with_an_error() -> None:
    *_, last = await collected(b'{"model": "x"}', EngineUnavailable("the engine broke off"))
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"] == "the engine broke off"


def test_the_engine_hears_the_version_and_only_what_it_needs() -> None:
    body = ChatRequest(
        model="users/ann", messages=[{"role": "user", "content": "hi"}], user="ann@example.org", metadata={"a": "b"},
        store=True, max_tokens=5, temperature=None,
    )  # fmt: skip
    assert body.to_engine(VERSION_ID, body.messages) == {
        "model": VERSION_ID,
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 5,
    }


@pytest.mark.parametrize("space", ["", " "])
def test_a_text_that_looks_like_the_models_field_is_left_alone(space: str) -> None:
    text = f'"model":{space}"{VERSION_ID}"'
    separators = (",", f":{space}")
    event = json.dumps({"choices": [{"delta": {"content": text}}], "model": VERSION_ID}, separators=separators)
    renamed = json.loads(Renamer(VERSION_ID, 'users/"ann"')(event.encode()))
    assert renamed == {"choices": [{"delta": {"content": text}}], "model": 'users/"ann"'}


async def test_tokens_are_counted_and_told_only_to_who_asked() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b'{"choices": [{"delta": {"content": "a"}}]}'
        yield b'{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}}'

    for with_usage in (False, True):
        events = EngineEvents(source())
        told = [each async for each in chunks(events, theirs="x", ours="y", with_usage=with_usage)]
        assert len(told) == (3 if with_usage else 2)
        assert events.usage == {"prompt_tokens": 3, "completion_tokens": 9}


async def test_a_stream_that_breaks_off_counts_the_events_that_came() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b'{"choices": [{"delta": {"content": "a"}}]}'
        raise EngineUnavailable

    events = EngineEvents(source())
    assert len([each async for each in chunks(events, theirs="x", ours="y", with_usage=False)]) == 2
    assert events.usage == {"completion_tokens": 1}


async def test_an_event_that_is_no_json_ends_the_stream_with_an_error() -> None:
    *_, last = await collected(b"{broken")
    assert "not JSON" in json.loads(last.removeprefix(b"data: "))["error"]["message"]


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
