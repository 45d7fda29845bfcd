"""Every route that OpenAPI describes, with whatever its schema allows or forbids: no crash, no undocumented answer.

Half of the calls name things that exist, so that handlers are reached and not only their doors.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from kit.database import Database
from registry.app import create_app
from registry.settings import RegistrySettings
from tests.support.adapters import BASE
from tests.support.catalog import add_bases, add_version
from tests.support.registry_server import TOKEN

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def operations() -> Iterator[Any]:
    """Every operation; the app is only asked what it is, so it needs no services."""
    described = RegistrySettings(database_url="postgresql+asyncpg://x/x", registry_token=SecretStr("x" * 16))
    schema = schemathesis.openapi.from_dict(create_app(described).openapi())
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.startswith("/v1"):
            yield operation


async def test_no_route_crashes_or_answers_what_it_does_not_document(registry_url: str, database: Database) -> None:
    await add_bases(database)
    first = await add_version(database, user="ann", transcripts=("t1",), live=True)
    await add_version(database, user="ann", number=2, transcripts=("t1", "t2"))
    known = {
        "tenant": "default", "user": "ann", "adapter": "profile", "alias": "live", "selector": "live",
        "version_id": first.version_id, "base_id": BASE.id, "engine_id": "engine-1",
    }  # fmt: skip
    failures: list[str] = []
    for operation in operations():
        failures += await asyncio.to_thread(_attack, operation, registry_url, known)
    assert not failures, "\n\n".join(failures)


def _attack(operation: Any, url: str, known: dict[str, str]) -> list[str]:
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
            if real and isinstance(case.path_parameters, dict):
                case.path_parameters |= {name: known[name] for name in case.path_parameters if name in known}
            response = case.call(base_url=url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=60)
            case.validate_response(response, checks=CHECKS)

        try:
            call()
        except (Exception, BaseExceptionGroup) as exc:  # whatever it is, it belongs to this operation
            found.append(f"{operation.label} ({mode.value}): {exc}")
    return found


BODIES = {
    "nested": b'{"evaluation": ' + b'{"a":' * 400 + b"1" + b"}" * 400 + b"}",
    "very deep": b"[" * 100_000 + b"]" * 100_000,
    "many": b'{"evaluation": {"a": [' + b"[]," * 200_000 + b"[]]}}",
    "nul": b'{"lineage": {"question_writer": "a\\u0000b"}}',
    "nul in a name": b'{"lineage": {"packages": {"a\\u0000b": "1"}}}',
    "huge number": b'{"version": ' + b"9" * 5000 + b"}",
    "huge float": b'{"evaluation": {"a": 1e999}}',
    "no UTF-8": b'{"adapter": "\xff\xfe"}',
    "half a pair": b'{"lineage": {"question_writer": "\\ud800"}}',
    "one string": b'"' + b"x" * 100_000 + b'"',
    "nothing": b"",
    "no JSON": b"{",
}


@pytest.mark.parametrize("body", BODIES)
async def test_a_poisonous_body_is_refused_with_its_field(registry_url: str, body: str) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=registry_url, headers=headers, timeout=60) as http:
        for path in ("/v1/versions", "/v1/bases", "/v1/versions/v" + "0" * 32 + "/evaluations"):
            answer = await http.post(path, content=BODIES[body])
            assert answer.status_code == 422, f"{path}: {answer.text[:300]}"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["errors"][0]["field"].startswith("body")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tenants/t/users/u/adapters/a/resolution?selector=2147483648",
        "/v1/tenants/t/users/u/adapters/a/resolution?selector=" + "9" * 120,
        "/v1/tenants/t/users/u/adapters/a/versions/2147483648",
        "/v1/tenants/t/users/u/adapters/a/versions?cursor=99999999999999999999",
        "/v1/tenants/t/users/u/adapters/a/difference?old=2147483648&new=1",
        "/v1/tenants/t/adapters?cursor=%00",
        "/v1/tenants/t/adapters?search=%00",
        "/v1/tenants/t/adapters?search=%ff",
        "/v1/tenants/t/adapters?base=a%00b",
        "/v1/tenants/t/adapters?created_since=999999-01-01",
        "/v1/tenants/t/adapters?limit=99999999999999999999",
        "/v1/tenants/t/versions?transcript=a%00b",
        "/v1/tenants/t/users/%00/adapters/a",
        "/v1/tenants/t/users/u/adapters/a/aliases/%00",
        "/v1/bases/a%00b",
        "/v1/versions/v%00",
    ],
)
async def test_a_poisonous_address_is_refused(registry_url: str, path: str) -> None:
    async with httpx.AsyncClient(
        timeout=60, base_url=registry_url, headers={"authorization": f"Bearer {TOKEN}"}
    ) as http:
        answer = await http.get(path)
    assert answer.status_code in {404, 422}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
