"""What tests of steering share: published versions, and what the tables say of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text

from kit.database import Database
from registry.client import RegistryClient, draft_from_directory
from registry.lifecycle.upkeep.schemas import Finding, PassPage, Reconcile, Retain
from registry.manifest import Lineage, Owner
from tests.support.adapters import BASE, write_adapter
from tests.support.registry_server import OWNER

ADAPTER = "profile"


async def publish(
    client: RegistryClient,
    directory: Path,
    *,
    seed: int = 0,
    owner: Owner = OWNER,
    trained: bool = False,
    evaluation: dict[str, Any] | None = None,
    adapter: str = ADAPTER,
) -> str:
    """Publish one version and return its id."""
    folder = write_adapter(directory / f"{owner.user}-{adapter}-{seed}", seed=seed)
    lineage = Lineage(trained_at=datetime(2026, 1, 1, tzinfo=UTC)) if trained else Lineage()
    draft = draft_from_directory(
        folder, owner=owner, adapter=adapter, base=BASE, lineage=lineage, evaluation=evaluation or {}
    )
    return (await client.publish(folder, draft=draft)).version_id


async def publish_many(client: RegistryClient, directory: Path, count: int, **more: Any) -> list[str]:
    """Publish versions of different content and return their ids in the order of their numbers."""
    return [await publish(client, directory, seed=seed, **more) for seed in range(count)]


async def make_live(client: RegistryClient, *version_ids: str, owner: Owner = OWNER) -> None:
    """Let `live` name each version in turn."""
    for version_id in version_ids:
        held = await client.get_alias(owner, ADAPTER, "live")
        await client.move_alias(owner, ADAPTER, "live", version_id=version_id, expected_version_id=held)


async def aliases(database: Database) -> dict[str, str]:
    """Return alias → version id of the only adapter there is."""
    return dict(await rows(database, "select name, version_id from alias"))


async def states(database: Database) -> dict[str, str]:
    """Return version id → state."""
    return {found[0]: found[1] for found in await rows(database, "select version_id, state from adapter_version")}


async def audit(database: Database, version_id: str | None = None) -> list[tuple[Any, ...]]:
    """Return (actor, action, from, to, why) of every entry, or of one version's, the oldest first."""
    which = "where version_id = :version_id" if version_id else ""
    statement = f'select actor, action, "from", "to", why from audit {which} order by id'
    return await rows(database, statement, **({"version_id": version_id} if version_id else {}))


async def rows(database: Database, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows."""
    async with database.transaction() as session:
        result: Any = await session.execute(text(statement), values)
        return [tuple(row) for row in result] if result.returns_rows else []


async def lease(
    database: Database, version_id: str, *, leases: int = 1, silent_seconds: int = 0, engine: str = "engine-1"
) -> None:
    """Let an engine say that it answers `leases` requests with a version."""
    await rows(
        database,
        "insert into engine (id, facts, incarnation, last_seen_at) values (:id, '{}', :id, "
        "now() - make_interval(secs => :silent)) on conflict (id) do update set last_seen_at = excluded.last_seen_at",
        id=engine,
        silent=silent_seconds,
    )
    await rows(
        database,
        "insert into engine_holding (engine_id, version_id, tier, leases) values (:id, :version_id, 'device', :leases) "
        "on conflict (engine_id, version_id) do update set leases = excluded.leases",
        id=engine,
        version_id=version_id,
        leases=leases,
    )


async def let_urls_lapse(database: Database) -> None:
    """Let two hours pass, which is longer than an upload URL lives."""
    for table in ("adapter_version", "audit"):
        await rows(database, f"alter table {table} disable trigger user")
    await rows(
        database,
        "update adapter_version set ready_at = ready_at - interval '2 h', erased_at = erased_at - interval '2 h'",
    )
    await rows(database, "update audit set at = at - interval '2 h'")
    for table in ("adapter_version", "audit"):
        await rows(database, f"alter table {table} enable trigger user")


async def retain(client: RegistryClient, **options: Any) -> list[Finding]:
    """Run a whole retention pass in small pages and return everything that it found."""
    return await _whole_pass(client.lifecycle.retain, Retain(limit=2, **options))


async def reconcile(client: RegistryClient, **options: Any) -> list[Finding]:
    """Run a whole reconcile pass in small pages and return everything that it found."""
    return await _whole_pass(client.lifecycle.reconcile, Reconcile(**({"limit": 2} | options)))


async def _whole_pass(run: Callable[[Any], Awaitable[PassPage]], request: Any) -> list[Finding]:
    findings: list[Finding] = []
    while True:
        page = await run(request)
        findings += page.findings
        if page.next_cursor is None:
            return findings
        request = request.model_copy(update={"cursor": page.next_cursor})
