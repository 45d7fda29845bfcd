"""Whatever is sent: no crash, no answer that is not documented, nothing of another tenant's."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings
from tests.support.gateway_routes import NAMES, ROUTES
from tests.support.gateway_server import Gateway, StandInEngine


@schemathesis.serializer("application/x-ndjson")
def _ndjson(context: Any, value: Any) -> bytes:
    """Send whatever was made up as it is."""
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))
MALFORMED = int(os.environ.get("FUZZ_MALFORMED", "10000"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
SECRET = "the-lighthouse-keeper"
# After these nothing else about a user is answered, and no other route of theirs would be reached.
ENDS = ("/erasure", "/suspend", "/retire")


def operations() -> list[Any]:
    """Every operation, what ends a user last; the app is only asked what it is, so it needs no services."""
    token = SecretStr("x" * 16)
    described = GatewaySettings(
        database_url="postgresql+asyncpg://x/x",
        registry_url="http://x",
        registry_token=token,
        engine_url="http://x",
        engine_token=token,
    )
    found = schemathesis.openapi.from_dict(create_app(described).openapi()).get_all_operations()
    public = [each for each in (one.ok() for one in found) if each.path.startswith("/v1/")]
    return sorted(public, key=lambda operation: operation.path.endswith(ENDS))


async def settle_in(gateway: Gateway, stand_in: StandInEngine) -> None:
    """Let both tenants have an ann; what the other one said must not be answered."""
    stand_in.answer = lambda body: '"tea"'  # JSON, whatever the schema
    await gateway.publish("ann")
    await gateway.publish("bob", seed=2)
    await gateway.say("ann", "I love green tea", "I hate mornings")
    await gateway.say("ann", f"I am {SECRET}", tenant="other")
    async with gateway.caller(gateway.other_key) as other:
        turns = [{"role": "user", "text": SECRET}]
        (await other.put("/v1/users/ann/transcripts/talk-1", json={"turns": turns, "title": SECRET})).raise_for_status()


async def test_no_route_crashes_or_answers_what_it_does_not_document(gateway: Gateway, stand_in: StandInEngine) -> None:
    await settle_in(gateway, stand_in)
    failures: list[str] = []
    for operation in operations():
        failures += await asyncio.to_thread(_attack, operation, gateway)
    assert not failures, "\n\n".join(failures)


def _attack(operation: Any, gateway: Gateway) -> list[str]:
    """Return what was wrong, at most one finding for each kind of data."""
    found = []
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
        )
        @given(case=operation.as_strategy(mode), real=st.booleans())
        def call(case: Any, real: bool) -> None:
            for name in [name for name in case.headers or {} if name.lower() == "x-lorry-deadline"]:
                del case.headers[name]  # who waits for a moment only is told 504, and rightly so
            if real and isinstance(case.path_parameters, dict):
                case.path_parameters |= {name: NAMES[name] for name in case.path_parameters if name in NAMES}
            response = case.call(base_url=gateway.url, headers={"authorization": f"Bearer {gateway.key}"}, timeout=60)
            case.validate_response(response, checks=CHECKS)
            assert SECRET not in response.text

        try:
            call()
        except (Exception, BaseExceptionGroup) as exc:  # whatever it is, it belongs to this operation
            found.append(f"{operation.label} ({mode.value}): {exc}")
    return found


_JUNK: list[Any] = [
    None, True, 0, -1, 1e308, 2**63, 10**400, "", "x" * 9000, "\x00", "\u202e", "é" * 200, "'; drop table turn; --",
    "{{7*7}}", "../../etc/passwd", "users/ann", [], {}, [[[]]], {"a": {"b": [None]}}, ["user"] * 50,
]  # fmt: skip
_BODIES = [
    b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"NaN", b'{"question": NaN}', b'{"a":' * 80 + b"1" + b"}" * 80,
    b'{"question": "\\ud800"}', b'{"question": "\\u0000"}', b'{"max_tokens": ' + b"9" * 5000 + b"}", b"\x00" * 20,
    b'{"messages": [' + b"{}," * 2000 + b"{}]}", b'{"model": "users/ann", "messages": [{"role": 3}]}', b"a=1&b=2",
]  # fmt: skip
_SEGMENTS = [
    "ann",
    "%00",
    "%ff",
    "..%2f",
    "a" * 300,
    "~",
    "@",
    "%20",
    "live",
    "-1",
    "999999999999999999999",
    "é",
    "*",
    "{}",
]
_HEADERS: list[tuple[str, str]] = [
    ("content-type", "text/plain"), ("content-type", "application/xml"), ("content-type", "multipart/form-data"),
    ("content-type", "application/json; charset=utf-16"), ("accept", "image/png"), ("accept", ";;q=x"),
    ("accept", "text/event-stream"), ("if-none-match", '"' * 50), ("if-none-match", "*"), ("range", "bytes=0-1"),
    ("idempotency-key", "same"), ("idempotency-key", "a b"), ("x-lorry-deadline", "1e400"), ("expect", "nothing"),
    ("x-lorry-deadline", "x"), ("x-request-id", "x" * 300), ("x-lorry-fallback", "profile"),
    ("last-event-id", "x" * 19), ("x-lorry-fallback", "x"), ("content-encoding", "gzip"),
    ("x-http-method-override", "DELETE"),
]  # fmt: skip
_METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]


class Malformer:
    """Makes requests that are wrong somewhere, the same ones from the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def request(self) -> tuple[str, str, dict[str, Any]]:
        """Return the method, the address and what else is sent."""
        chosen = self._random
        route = chosen.choice(ROUTES)
        method = chosen.choice(_METHODS) if chosen.random() < 0.1 else route.method
        names = {name: chosen.choice(_SEGMENTS) if chosen.random() < 0.3 else value for name, value in NAMES.items()}
        if route.path.endswith(ENDS) and names["user_id"] == "ann":
            names["user_id"] = "bob"
        path = route.path.format(**names)
        if chosen.random() < 0.3:
            field = chosen.choice(["limit", "cursor", "after", "state", "user_id", "since", "old", "alias", "by", "x"])
            path += f"?{field}={chosen.choice(_SEGMENTS)}"
        headers = dict(chosen.sample(_HEADERS, k=chosen.choice([0, 0, 1, 2])))
        return method, path, {"content": self._body(route), "headers": {"content-type": "application/json"} | headers}

    def _body(self, route: Any) -> bytes:
        chosen = self._random
        if not isinstance(route.body, dict) or chosen.random() < 0.3:
            return chosen.choice(_BODIES)
        body = dict(route.body)
        fields = [*body, "schema", "temperature", "stream", "n", "settings", "title", "fallback", "extra"]
        for _ in range(chosen.choice([1, 1, 2])):
            body[chosen.choice(fields)] = chosen.choice(_JUNK)
        return json.dumps(body).encode()


def is_busy(answer: httpx.Response) -> bool:
    """Say whether a gateway refused because it extracts as many profiles as it may."""
    return answer.status_code == 503 and answer.json()["type"] == "urn:lorry:problem:extraction-busy"


async def test_ten_thousand_malformed_requests_break_nothing_and_learn_nothing(
    gateway: Gateway, stand_in: StandInEngine
) -> None:
    await settle_in(gateway, stand_in)
    malformer, statuses = Malformer(7), Counter[int]()
    turns = asyncio.Semaphore(32)
    # The server closes what is idle for 5 seconds, and so long httpx waits, too: a request would run into that.
    limits = httpx.Limits(max_connections=32, keepalive_expiry=2.0)
    headers = {"authorization": f"Bearer {gateway.key}"}
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, timeout=60, limits=limits, trust_env=False
    ) as http:

        async def send() -> None:
            async with turns:
                method, path, rest = malformer.request()
                answer = await http.request(method, path, **rest)
                statuses[answer.status_code] += 1
                told = f"{method} {path} {rest}: {answer.status_code} {answer.text[:300]}"
                assert answer.status_code < 500 or is_busy(answer), told
                assert SECRET not in answer.text, told
                if answer.status_code >= 400 and method != "HEAD":
                    assert answer.headers["content-type"] == "application/problem+json", told

        for start in range(0, MALFORMED, 500):
            await asyncio.gather(*(send() for _ in range(min(500, MALFORMED - start))))
        assert (await http.get("/readyz")).status_code == 200
        asked = await http.post("/v1/users/ann/query", json={"question": "?"})
        assert asked.status_code == 200, f"to the end there was somebody to be wrong about: {asked.text}"
    assert sum(statuses.values()) == MALFORMED
    assert len(statuses) >= 6, f"they reach many ways of being wrong: {statuses}"
    assert stand_in.running == 0
