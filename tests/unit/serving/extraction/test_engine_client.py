from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from registry.manifest import LoraShape, Manifest, ManifestFile, Owner
from serving.errors import (
    BaseWithoutEngine,
    EngineAnswerUnusable,
    EngineCallError,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
)
from serving.extraction.asking.answers import parse_answers
from serving.extraction.engine_client import EngineClient
from tests.support.adapters import BASE

VERSION_ID = "v" + "a" * 32
MANIFEST = Manifest(
    owner=Owner(tenant="a-tenant-of-ours", user="ann"),
    base=BASE,
    lora=LoraShape(rank=4, alpha=8, target_modules=("q_proj",)),
    files=(ManifestFile(path="adapter_config.json", size_bytes=1, sha256="0" * 64),),
    version_id=VERSION_ID,
    version=2,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)


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
        choices = [{"message": {"content": "a"}}, {"message": {"content": None}}]
        return httpx.Response(200, json={"choices": choices, "usage": {"prompt_tokens": 31}})

    async with client(answer) as engine:
        sampled = await engine.ask(
            "Q?", manifest=MANIFEST, schema={"type": "object"}, samples=2, max_tokens=9, temperature=0.5, seed=7
        )
    assert (sampled.texts, sampled.prompt_tokens) == (("a", ""), 31)
    assert seen[0].headers["authorization"] == "Bearer secret-token"
    assert seen[0].headers["x-lorry-class"] == "batch"
    told = {name: value for name, value in seen[0].headers.items() if name.startswith("x-lorry-")}
    assert all(name not in str(told) for name in ("a-tenant-of-ours", MANIFEST.owner.user, VERSION_ID))
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
    ("tokens", "found"),
    [
        ([None, {"5": {"logprob": -7.0}}, {"1": {"logprob": -0.5}}, {"9": {"logprob": -2}}], [-0.5, -2.0]),
        ([None, {"5": {"logprob": -7.0}}], []),
        ([None, {"5": {"logprob": -7.0}}, {}], []),
        ([None, {"5": {"logprob": -7.0}}, None], []),
        ([None, {"5": {"logprob": -7.0}}, {"1": {"logprob": "much"}}], []),
        ([None, {"5": {"logprob": -7.0}}, {"1": -1}], []),
        (None, []),
        ("x", []),
    ],
)
async def test_only_the_answers_tokens_are_scored_and_what_is_not_understood_gives_nothing(
    tokens: object, found: list[float]
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"choices": [], "prompt_logprobs": tokens})

    async with client(answer) as engine:
        scored = await engine.score("Q?", "A", manifest=MANIFEST, model="base", prompt_tokens=2)
    assert scored == found


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0}, {"prompt_tokens": "7"}, []])
async def test_an_engine_that_does_not_count_prompts_says_none(usage: object) -> None:
    async with client(lambda _: httpx.Response(200, json={"choices": [], "usage": usage})) as engine:
        sampled = await engine.ask("Q?", manifest=MANIFEST, schema={}, samples=1, max_tokens=9, temperature=0.5, seed=7)
    assert sampled.prompt_tokens is None


async def test_a_tenant_is_told_by_a_digest_that_only_the_token_gives() -> None:
    other = Manifest.model_validate({**MANIFEST.model_dump(), "owner": Owner(tenant="another", user="ann")})
    async with client(None) as one, EngineClient(url="http://e", token="another-token") as two:
        seen = [
            engine.headers(manifest, kind="live")["x-lorry-tenant"]
            for engine, manifest in ((one, MANIFEST), (one, MANIFEST), (one, other), (two, MANIFEST))
        ]
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


async def test_a_prefetch_names_version_and_class() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202, json={"state": "loading"})

    async with client(answer) as engine:
        await engine.prefetch(MANIFEST, kind="live")
    assert (seen[0].url.path, json.loads(seen[0].content)) == (
        f"/lorry/adapters/{VERSION_ID}/prefetch", {"class": "live"},
    )  # fmt: skip


@pytest.mark.parametrize(("status", "error"), [(429, EngineRefused), (503, EngineUnavailable)])
@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("soon", None), ("-1", None), ("9" * 400, None)])
async def test_when_to_come_back_is_passed_on(
    status: int, error: type[EngineCallError], header: str, seconds: int | None
) -> None:
    async with client(lambda _: httpx.Response(status, headers={"retry-after": header})) as engine:
        with pytest.raises(error) as caught:
            await engine.chat({})
    assert caught.value.details.get("retry_after_seconds") == seconds


@pytest.mark.parametrize(
    ("response", "error", "status"),
    [
        (httpx.Response(400, json={"error": {"message": f"too long for {VERSION_ID}"}}), EngineRefused, 400),
        (httpx.Response(404, json={"detail": "gone"}), EngineRefused, 404),
        (httpx.Response(429, text="slow down"), EngineRefused, 429),
        (httpx.Response(409, json={"error": {"type": "BaseModelMismatch"}}), BaseWithoutEngine, 503),
        (httpx.Response(409, json={"error": {"type": ["BaseModelMismatch"]}}), EngineRefused, 409),
        (httpx.Response(409, json={"error": "BaseModelMismatch"}), EngineRefused, 409),
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


@pytest.mark.parametrize(
    ("response", "ending"),
    [
        (httpx.Response(200, json={"choices": []}), "answered"),
        (httpx.Response(400, json={}), "refused"),
        (httpx.Response(409, json={"error": {"type": "BaseModelMismatch"}}), "other_base"),
        (httpx.Response(503), "failed"),
        (httpx.ConnectError("refused"), "failed"),
    ],
)
async def test_who_listens_hears_how_each_call_ended(response: httpx.Response | Exception, ending: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if isinstance(response, Exception):
            raise response
        return response

    heard: list[str] = []
    transport = httpx.MockTransport(answer)
    async with EngineClient(url="http://e", token="t", transport=transport, on_end=heard.append) as engine:
        for call in (engine.chat({}), _opened(engine)):
            with contextlib.suppress(EngineCallError):
                await call
    assert heard == [ending, ending]


async def _opened(engine: EngineClient) -> None:
    async with engine.stream({}):
        pass


async def test_what_an_engine_sets_as_a_cookie_is_not_brought_to_it_with_another_tenants_request() -> None:
    brought: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        brought.append(request.headers.get("cookie"))
        return httpx.Response(200, json={"choices": []}, headers={"set-cookie": "who=ann; Path=/"})

    async with EngineClient(url="http://e", token="t", transport=httpx.MockTransport(answer)) as engine:
        await engine.chat({})
        await _opened(engine)
        await engine.chat({})
    assert brought == [None] * 3
