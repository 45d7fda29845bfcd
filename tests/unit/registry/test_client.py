"""What the client is made of, and how it reads refusals."""

from __future__ import annotations

import json
import subprocess
import sys

import httpx
import pytest

from kit.errors import InvalidName, LorryError
from registry import errors
from registry.client import RegistryClient
from registry.client.transport import error_from
from registry.errors import InvalidReference, RegistryError, RegistryUnavailable, Unauthorized
from registry.manifest import Owner

SERVICE_ONLY = ("boto3", "botocore", "sqlalchemy", "asyncpg", "fastapi", "starlette", "uvicorn", "torch", "numpy")


def problem(status: int, code: str, **extensions: object) -> httpx.Response:
    body = {"type": f"urn:lorry:problem:{code}", "title": "T", "status": status, "detail": "D", **extensions}
    return httpx.Response(status, json=body)


def test_the_client_imports_nothing_of_the_services() -> None:
    script = f"import sys, registry.client; print([m for m in {SERVICE_ONLY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("adapter-not-found", errors.AdapterNotFound),
        ("version-conflict", errors.VersionConflict),
        ("adapter-invalid", errors.AdapterInvalid),
        ("digest-mismatch", errors.DigestMismatch),
        ("not-servable", errors.NotServable),
        ("unauthorized", Unauthorized),
        ("invalid-name", InvalidName),
        ("something-newer", RegistryError),
    ],
)
def test_a_refusal_becomes_the_error_that_was_raised(code: str, error: type[LorryError]) -> None:
    found = error_from(problem(409, code, field="f", current_version_id="v1"))
    assert type(found) is error
    assert (found.message, found.field, found.details) == ("D", "f", {"current_version_id": "v1"})


def test_a_request_that_the_registry_cannot_read_names_the_field() -> None:
    found = error_from(problem(422, "invalid-request", errors=[{"field": "body.base", "reason": "missing"}]))
    assert isinstance(found, InvalidReference)
    assert found.field == "body.base"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"\xff"])
def test_an_answer_that_is_no_problem_is_still_an_error_of_the_tree(body: bytes) -> None:
    assert type(error_from(httpx.Response(500, content=body))) is RegistryError
    assert type(error_from(httpx.Response(503, content=body))) is RegistryUnavailable


async def test_a_call_is_repeated_while_the_registry_is_away() -> None:
    calls: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        if len(calls) == 1:
            raise httpx.ConnectError("refused")
        return problem(503, "database-unavailable") if len(calls) == 2 else httpx.Response(200, json=[])

    async with RegistryClient(url="http://r", token="t", transport=httpx.MockTransport(answer)) as client:
        assert await client.list_bases() == []
    assert len(calls) == 3
    assert calls[-1].headers["authorization"] == "Bearer t"


async def test_a_registry_that_stays_away_is_unavailable() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async with RegistryClient(url="http://r", token="t", transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(RegistryUnavailable, match="ConnectError"):
            await client.list_bases()


async def test_a_refusal_is_not_repeated() -> None:
    calls: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return problem(401, "unauthorized")

    async with RegistryClient(url="http://r", token="t", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(Unauthorized):
            await client.list_bases()
    assert len(calls) == 1


async def test_an_answer_of_another_shape_is_an_error_of_the_tree() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=json.dumps({"surprise": 1})))
    async with RegistryClient(url="http://r", token="t", transport=transport) as client:
        with pytest.raises(RegistryError, match="do the two match"):
            await client.list_bases()


async def test_names_that_would_leave_their_place_in_a_url_are_refused_before_sending() -> None:
    async with RegistryClient(url="http://r", token="t", transport=httpx.MockTransport(lambda _: None)) as client:  # type: ignore[arg-type,return-value]
        owner = Owner(tenant="default", user="ann")
        with pytest.raises(InvalidName):
            await client.list_versions(owner, "../x")
        with pytest.raises(InvalidName):
            await client.get_version("a/b")
        with pytest.raises(InvalidReference):
            await client.move_alias(owner, "profile", "live", version_id="nonsense", expected_version_id=None)


@pytest.mark.parametrize("token", ["", " t", "t\n", "\u00e4"])
def test_a_token_that_no_header_can_carry_is_refused_at_once(token: str) -> None:
    with pytest.raises(Unauthorized):
        RegistryClient(url="http://r", token=token)
