from __future__ import annotations

import re
from pathlib import Path

from pydantic import SecretStr

from lorry.registry_page import page
from registry.app import create_app
from registry.settings import RegistrySettings

PAGE = Path(__file__).resolve().parents[3] / "docs" / "registry-api.md"


def test_the_page_of_the_registrys_routes_is_current() -> None:
    assert PAGE.read_text() == page(), "run: python -m lorry.registry_page > docs/registry-api.md"


def test_every_route_is_written_as_it_is_called() -> None:
    settings = RegistrySettings(database_url="postgresql+asyncpg://x/x", registry_token=SecretStr("x" * 16))
    paths = create_app(settings).openapi()["paths"]
    named = {line.split("`")[1] for line in page().splitlines() if line.startswith("| `")}
    served = {f"{verb.upper()} {path}" for path, operations in paths.items() for verb in operations}
    assert {route for route in served if " /v1/" in route} == named
    for path in re.findall(r"\$URL(/v1/[a-z0-9/]+)", page()):
        assert any(re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", known), path) for known in paths), path


def test_the_page_marks_what_honours_an_idempotency_key() -> None:
    kept = {line.split("`")[1] for line in page().splitlines() if line.startswith("| `") and "` ↻ |" in line}
    adapter = "/v1/tenants/{tenant}/users/{user}/adapters/{adapter}"
    engine = "/v1/engines/{engine_id}"
    wanted = ("/v1/bases", f"{adapter}/promote", f"{adapter}/rollback", f"{engine}/heartbeat", f"{engine}/leave")
    assert kept == {f"POST {path}" for path in wanted}


def test_the_page_knows_what_an_engine_may_do() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    engine = {row.split("`")[1] for row in rows if "| operator, engine |" in row}
    assert "GET /v1/versions/{version_id}/grant" in engine
    assert "POST /v1/versions/{version_id}/erase" not in engine
    assert len(engine) < len(rows) / 2
