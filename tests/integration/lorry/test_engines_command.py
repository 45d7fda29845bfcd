"""`lorry engines`, as a process, against a real registry."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kit.database import Database
from kit.settings import DatabaseSettings
from registry.client import RegistryClient
from registry.engines.schemas import Holdings, Registration, Tier
from serving.engine.eraser import Receipt
from serving.engine.pool.erasure import Erasure, Removal
from tests.support.adapters import BASE
from tests.support.command import Lorry
from tests.support.nursery import Nursery
from tests.support.registry_server import client, registry_settings, registry_url
from tests.support.versions import add_version, execute

ENGINE_TOKEN = "engine-token"
ERASED = "v" + "e" * 32
__all__ = ["client", "registry_settings", "registry_url"]
Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def command(nursery: Nursery, registry_url: str, database_settings: DatabaseSettings, tmp_path: Path) -> Command:
    """Run `lorry engines …`."""
    lorry = Lorry(nursery, registry_url=registry_url, database_url=database_settings.database_url, home=tmp_path)
    lorry.environment["LORRY_ENGINE_TOKEN"] = ENGINE_TOKEN
    return partial(lorry, "engines")


async def test_engines_are_shown_and_forgotten(
    command: Command,
    client: RegistryClient,
    database: Database,
) -> None:
    assert (await command())[1].startswith("No engine has registered")
    version_id = await add_version(database)
    registration = Registration(
        incarnation=uuid.uuid4().hex,
        base=BASE,
        address="http://gpu:8100",
        holdings=Holdings.of({version_id: Tier.DISK}),
    )
    await client.engines.register("gpu-7", registration)

    code, table, _ = await command()
    assert code == 0
    for cell in ("gpu-7", "alive", BASE.id, "http://gpu:8100"):
        assert cell in table
    (shown,) = json.loads((await command("--json"))[1])
    assert (shown["id"], shown["state"], shown["held"]) == ("gpu-7", "alive", {"disk": 1, "host": 0, "device": 0})
    (holder,) = json.loads((await command("holders", version_id, "--json"))[1])
    assert (holder["engine_id"], holder["tier"]) == ("gpu-7", "disk")

    code, _, complaint = await command("forget", "gpu-7")
    assert (code, "is alive" in complaint) == (4, True)
    await execute(database, "update engine set last_seen_at = now() - interval '5 minutes'")
    assert "LAPSED" in (await command())[1]
    assert (await command("forget", "gpu-7"))[0] == 0
    assert (await command("forget", "gpu-7"))[0] == 3


@pytest.fixture
def engine_url() -> Iterator[str]:
    """An engine that has erased one version, as far as its receipts go."""
    removal = Removal(named=True, host_bytes=4096, slots_zeroed=2, workers=1)
    memory = Erasure(version_id=ERASED, leases=1, refused=0, waited_seconds=0.1, removal=removal)
    receipt = Receipt(
        version_id=ERASED,
        because="erased",
        ordered_by="registry",
        at=datetime.now(UTC),
        memory=memory,
        disk_bytes=2048,
    )
    body = json.dumps({"erasures": [receipt.to_json()]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = (self.path, self.headers["authorization"]) == ("/lorry/erasures", f"Bearer {ENGINE_TOKEN}")
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(body if known else b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


async def test_receipts_of_every_engine_are_shown_and_who_does_not_answer_is_named(
    command: Command, client: RegistryClient, engine_url: str
) -> None:
    for engine_id, address in (("gpu-8", engine_url), ("gpu-9", "http://127.0.0.1:1")):
        await client.engines.register(
            engine_id, Registration(incarnation=uuid.uuid4().hex, base=BASE, address=address, holdings=Holdings())
        )
    code, table, complaint = await command("receipts")
    assert code == 0
    for cell in ("gpu-8", ERASED, "erased", "registry", "4096", "2048"):
        assert cell in table
    assert "gpu-9: it did not answer" in complaint
    shown = {each["engine_id"]: each for each in json.loads((await command("receipts", "v0", "--json"))[1])}
    assert (shown["gpu-8"]["receipts"], shown["gpu-8"]["failure"]) == ([], None)
    assert shown["gpu-9"]["failure"] is not None
