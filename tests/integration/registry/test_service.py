"""The service's edge: tokens, limits, health, problem details, OpenAPI; and what the tables forbid."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from kit.database import Database
from registry.app import create_app
from registry.client import RegistryClient, draft_from_directory
from registry.errors import RegistryUnavailable, Unauthorized
from registry.settings import RegistrySettings
from tests.support.adapters import BASE, write_adapter
from tests.support.ports import reserved_port
from tests.support.registry_server import OWNER, TOKEN, register_base_when_ready, serving

HEADERS = {"authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("token", ["wrong-token-of-a-length", "x", "a-token-for-tests-onlyx", "\u00e4"])
async def test_a_wrong_token_is_refused(registry_url: str, token: str) -> None:
    async with httpx.AsyncClient(timeout=60, base_url=registry_url) as http:
        headers = {"authorization": f"Bearer {token}".encode("latin-1")}
        answer = await http.get("/v1/bases", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:lorry:problem:unauthorized"


async def test_without_a_token_only_health_is_open(registry_url: str, registry_settings: RegistrySettings) -> None:
    open_paths = {"/healthz", "/readyz"}
    async with httpx.AsyncClient(timeout=60, base_url=registry_url) as http:
        for path, verbs in create_app(registry_settings).openapi()["paths"].items():
            for verb in verbs:
                status = (await http.request(verb, path)).status_code
                assert status == (200 if path in open_paths else 401), f"{verb} {path}"


async def test_the_client_sees_a_wrong_token_as_unauthorized(registry_url: str) -> None:
    async with RegistryClient(url=registry_url, token="wrong") as client:
        with pytest.raises(Unauthorized):
            await client.list_bases()


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(registry_url: str) -> None:
    async with httpx.AsyncClient(timeout=60, base_url=registry_url, headers=HEADERS) as http:
        answer = await http.post("/v1/versions", content=b" " * ((4 << 20) + 1))
        assert answer.status_code == 413
        assert answer.json()["type"] == "urn:lorry:problem:request-too-large"


async def test_a_body_of_unknown_length_is_refused_once_it_is_too_large(registry_url: str) -> None:
    async def chunks() -> Any:
        for _ in range(5):
            yield b" " * (1 << 20)

    async with httpx.AsyncClient(timeout=60, base_url=registry_url, headers=HEADERS) as http:
        assert (await http.post("/v1/versions", content=chunks())).status_code == 413


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b'{"owner": {"tenant": "t", "user": ".."}}', "body.owner.user"),
        (b'{"owner": {"tenant": "t", "user": "a b"}}', "body.owner.user"),
        (b'{"evaluation": {"loss": NaN}}', "body.evaluation"),
        (b'{"evaluation": {"loss": "\\ud800"}}', "body.evaluation.loss"),
        (b'{"lineage": {"packages": {"peft": "\\udc00"}}}', "body.lineage.packages.peft"),
        (b'{"lineage": {"packages": {"\\ud800": "1"}}}', "body.lineage.packages"),
        (b'{"version": 9999999999}', "body.version"),
        (b'{"files": [{"path": "../x", "size_bytes": 1, "sha256": ""}]}', "body.files.0.path"),
        (b'{"base": {"id": "nul\\u0000"}}', "body.base.id"),
        (b'{"surprise": 1}', "body.surprise"),
    ],
)
async def test_a_bad_draft_is_refused_by_field(registry_url: str, body: bytes, field: str) -> None:
    headers = HEADERS | {"content-type": "application/json"}
    async with httpx.AsyncClient(timeout=60, base_url=registry_url, headers=headers) as http:
        answer = await http.post("/v1/versions", content=body)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("method", "path", "body", "told"),
    [
        ("GET", "/v1/tenants/default/adapters?state=foo", None, "state: must be one of 'pending', "),
        ("GET", "/v1/tenants/default/adapters?limit=0", None, "limit: must be greater than or equal to 1"),
        ("GET", "/v1/tenants/a%20b/adapters", None, "tenant: name 'a b' must be 1 to 128"),
        ("POST", "/v1/bases", b'{"id": }', "body: is not JSON at character 7: Expecting value"),
        ("POST", "/v1/bases", b'{"moons": 1, "id": "x"}', "moons: is not a field that is known here"),
    ],
)
async def test_what_is_wrong_is_said_in_words(
    registry_url: str, method: str, path: str, body: bytes | None, told: str
) -> None:
    headers = HEADERS | {"content-type": "application/json"}
    async with httpx.AsyncClient(timeout=60, base_url=registry_url, headers=headers) as http:
        answer = await http.request(method, path, content=body)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]
    for word in ("Value error", "Input should", "JSON decode error"):
        assert word not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PATCH", "/v1/bases", "GET, POST"), ("GET", "/v1/versions/v1/suspend", "POST"), ("POST", "/v1/audit", "GET")],
)
async def test_a_method_that_no_route_takes_is_answered_with_all_that_are_taken(
    registry_url: str, method: str, path: str, allowed: str
) -> None:
    async with httpx.AsyncClient(timeout=60, base_url=registry_url, headers=HEADERS) as http:
        answer = await http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("user", ["%2e%2e", "a%20b", "%00", "a%0Ab", "x" * 129])
async def test_a_bad_name_in_a_path_finds_nothing(registry_url: str, user: str) -> None:
    async with httpx.AsyncClient(timeout=60, base_url=registry_url, headers=HEADERS) as http:
        answer = await http.get(f"/v1/tenants/t/users/{user}/adapters/a/versions")
    assert answer.status_code in {404, 422}
    assert answer.headers["content-type"] == "application/problem+json"


async def test_ready_means_that_both_stores_answer(registry_settings: RegistrySettings) -> None:
    no_store = registry_settings.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:9"})
    unreachable = "postgresql+asyncpg://u:p@127.0.0.1:9/x"
    no_database = registry_settings.model_copy(update={"database_url": unreachable})
    for settings, status in ((registry_settings, 200), (no_store, 503), (no_database, 503)):
        async with serving(create_app(settings)) as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
            assert (await http.get("/healthz")).status_code == 200
            answer = await http.get("/readyz")
            assert answer.status_code == status, answer.text
            assert status == 200 or answer.headers["retry-after"] == "1"


async def test_without_a_database_the_client_says_unavailable(registry_settings: RegistrySettings) -> None:
    unreachable = "postgresql+asyncpg://u:p@127.0.0.1:9/x"
    settings = registry_settings.model_copy(update={"database_url": unreachable})
    async with serving(create_app(settings)) as url, RegistryClient(url=url, token=TOKEN) as client:
        with pytest.raises(RegistryUnavailable):
            await client.list_bases()


async def test_every_route_documents_its_refusals(registry_settings: RegistrySettings) -> None:
    schema = create_app(registry_settings).openapi()
    for path, verbs in schema["paths"].items():
        for verb, operation in verbs.items():
            assert operation["summary"], f"{verb} {path}"
            if path.startswith("/v1"):
                assert {"401", "422", "503"} <= set(operation["responses"]), f"{verb} {path}"
                for status, answer in operation["responses"].items():
                    described = status in {"200", "304"} or "application/problem+json" in answer["content"]
                    assert described, f"{verb} {path} {status}"
    assert "Problem" in schema["components"]["schemas"]


async def test_the_command_serves_and_logs_no_user(registry_settings: RegistrySettings, tmp_path: Path) -> None:
    with reserved_port() as port:
        values = registry_settings.model_dump() | {"registry_port": port}
        environment = {
            f"LORRY_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in values.items()
            if value is not None
        }
        log = tmp_path / "log"
        with log.open("w") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "registry", env=os.environ | environment, stderr=file
            )
        try:
            async with RegistryClient(url=f"http://127.0.0.1:{port}", token=TOKEN) as client:
                await register_base_when_ready(client)
                directory = write_adapter(tmp_path / "a")
                await client.publish(directory, draft=draft_from_directory(directory, owner=OWNER, base=BASE))
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 120)
    assert process.returncode in {0, -15}
    lines = log.read_text()
    assert "is ready" in lines
    assert "users/" not in lines
    assert '"ann"' not in lines
    assert TOKEN not in lines


async def insert_ready(client: RegistryClient, directory: Path) -> str:
    write_adapter(directory)
    draft = draft_from_directory(directory, owner=OWNER, base=BASE)
    return (await client.publish(directory, draft=draft)).version_id


@pytest.mark.parametrize(
    "change",
    [
        "update adapter_version set manifest = '{}'",
        "update adapter_version set manifest = null",
        "update adapter_version set manifest_digest = 'x'",
        "update adapter_version set content_digest = 'x'",
        "update adapter_version set number = 9",
        "update adapter_version set size_bytes = 1",
        "update adapter_version set ready_at = now() + interval '1 day'",
        "update adapter_version set version_id = 'v00000000000000000000000000000000'",
        "update adapter_version set state = 'pending'",
        "update adapter_version set state = 'uploaded'",
        "update adapter_version set state = 'rejected', reason = 'x'",
        "update adapter_version set state = 'nonsense'",
        "delete from adapter_version",
        "update audit set actor = 'x'",
        "delete from audit",
        "insert into alias (adapter_id, name, version_id) select 999, 'live', version_id from adapter_version",
        "insert into adapter_version (version_id, adapter_id, number, state, base_id, content_digest, manifest, "
        "manifest_digest, size_bytes, created_at, ready_at) select 'v00000000000000000000000000000000', adapter_id, 2, "
        "'ready', base_id, 'x', manifest, manifest_digest, 1, now(), now() from adapter_version",
    ],
)
async def test_the_database_itself_forbids_it(
    client: RegistryClient, database: Database, tmp_path: Path, change: str
) -> None:
    version_id = await insert_ready(client, tmp_path / "a")
    before = (await client.get_version(version_id)).manifest
    with pytest.raises(DBAPIError):
        async with database.transaction() as session:
            await session.execute(text(change))
    assert (await client.get_version(version_id)).manifest == before


@pytest.mark.parametrize(
    "path",
    [["retired", "erased"], ["suspended", "ready"], ["suspended", "erased"], ["erased"], ["suspended", "retired"]],
)
async def test_the_database_allows_the_states_of_the_design(
    client: RegistryClient, database: Database, tmp_path: Path, path: list[str]
) -> None:
    await insert_ready(client, tmp_path / "a")
    for state in path:
        async with database.transaction() as session:
            wipe = ", manifest = null" if state == "erased" else ""
            await session.execute(text(f"update adapter_version set state = :state{wipe}"), {"state": state})


async def test_the_models_and_the_migration_agree(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from kit.database import Base
    from registry import models

    tables = {
        row.__tablename__ for row in vars(models).values() if isinstance(row, type) and hasattr(row, "__tablename__")
    }

    def differences(connection: Any) -> list[Any]:
        def ours(item: Any, name: str | None, kind: str, *_: Any) -> bool:
            return kind != "table" or name in tables

        context = MigrationContext.configure(connection, opts={"include_object": ours})
        return list(compare_metadata(context, Base.metadata))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
