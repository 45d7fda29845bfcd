from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from serving.errors import EngineAnswerUnusable, EngineCallError, EngineRefused, EngineTimeout, EngineUnavailable
from serving.extraction.engine_client import EngineClient, parse_answers

VERSION_ID = "v" + "a" * 32


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ('{"answers": ["I like tea", "I like rain"]}', ["I like tea", "I like rain"]),
        ('{"answers": []}', []),
        ('{"answers": ["  ", "a b "]}', ["a b"]),
        ('{"answers": ["I like tea", "I like ra', ["I like tea", "I like"]),
        ('{"answers": ["I like tea"', ["I like tea"]),
        ('{"answers": ["I like', ["I"]),
        ('{"answers": ["I', []),
        ('{"answers": [', []),
        ('{"ans', []),
        ('{ "answers"\n:\n[ "I say \\"hi\\" there", "caf\\u00e9 a\\u00', ['I say "hi" there', "café"]),
        ('{"answers": ["back\\\\slash one t', ["back\\slash one"]),
        ('{"answers": [1, null, "x y"]}', ["x y"]),
        ('{"answers": "x"}', []),
        ('"I like tea."', ["I like tea."]),
        ('"I like te', ["I like"]),
        ('"I like tea. \\"Quo', ["I like tea."]),
        ('["x"]', []),
        ("nonsense", []),
        ("", []),
    ],
)
def test_answers_are_read_whole_or_cut(text: str, answers: list[str]) -> None:
    assert parse_answers(text) == answers


def client(handler: Any) -> EngineClient:
    return EngineClient(url="http://engine", token="secret-token", transport=httpx.MockTransport(handler))


async def test_a_question_is_asked_of_one_version_with_the_schema_enforced() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"choices": [{"message": {"content": "a"}}, {"message": {"content": None}}]})

    async with client(answer) as engine:
        texts = await engine.ask(
            "Q?", version_id=VERSION_ID, schema={"type": "object"}, samples=2, max_tokens=9, temperature=0.5, seed=7
        )
    assert texts == ["a", ""]
    assert seen[0].headers["authorization"] == "Bearer secret-token"
    assert json.loads(seen[0].content) == {
        "model": VERSION_ID,
        "messages": [{"role": "user", "content": "Q?"}],
        "n": 2,
        "max_tokens": 9,
        "temperature": 0.5,
        "seed": 7,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answers", "schema": {"type": "object"}}},
    }


@pytest.mark.parametrize(
    ("response", "error", "status"),
    [
        (httpx.Response(400, json={"error": {"message": f"too long for {VERSION_ID}"}}), EngineRefused, 400),
        (httpx.Response(404, json={"detail": "gone"}), EngineRefused, 404),
        (httpx.Response(429, text="slow down"), EngineRefused, 429),
        (httpx.Response(401, json={}), EngineUnavailable, 503),
        (httpx.Response(500, json={"error": {"message": "boom"}}), EngineUnavailable, 503),
        (httpx.Response(503), EngineUnavailable, 503),
        (httpx.Response(200, text="<html>"), EngineAnswerUnusable, 502),
        (httpx.Response(200, json={"choices": None}), EngineAnswerUnusable, 502),
        (httpx.Response(200, json=[]), EngineAnswerUnusable, 502),
    ],
)
async def test_refusals_and_failures_are_told_apart(
    response: httpx.Response, error: type[EngineCallError], status: int
) -> None:
    async with client(lambda request: response) as engine:
        with pytest.raises(EngineCallError) as raised:
            await engine.chat({})
    assert type(raised.value) is error
    assert raised.value.status_code == status
    assert VERSION_ID not in raised.value.message


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (httpx.ConnectError("refused"), EngineUnavailable),
        (httpx.ConnectTimeout("slow"), EngineUnavailable),
        (httpx.ReadTimeout("slow"), EngineTimeout),
        (httpx.RemoteProtocolError("cut"), EngineUnavailable),
    ],
)
async def test_an_engine_that_cannot_be_reached_is_unavailable_and_a_silent_one_times_out(
    fault: httpx.HTTPError, error: type[EngineCallError]
) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise fault

    async with client(fail) as engine:
        with pytest.raises(error):
            await engine.chat({})
        with pytest.raises(error):
            async with engine.stream({}):
                pass
        assert not await engine.is_healthy()


@pytest.mark.parametrize("content", ["half a pair \ud800", float("nan"), float("inf")])
async def test_what_json_cannot_carry_is_the_callers_mistake(content: object) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError("nothing may be sent")

    transport = httpx.MockTransport(answer)
    async with EngineClient(url="http://engine", token="engine-token", transport=transport) as client:
        with pytest.raises(EngineRefused, match="JSON cannot carry"):
            await client.chat({"model": "base", "messages": [{"role": "user", "content": content}]})
