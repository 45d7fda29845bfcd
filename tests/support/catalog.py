"""Adapters and versions with whole manifests, written straight into the tables: what listings are tested on."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from kit.database import Database
from registry.manifest import BaseIdentity, Lineage, LoraShape, Manifest, ManifestFile, Owner
from registry.publishing.repository import PublishingRepository
from tests.support.adapters import BASE

OTHER_BASE = BASE.model_copy(update={"id": "org/other-base", "weights_sha256": "9" * 64})


async def add_bases(database: Database, *bases: BaseIdentity) -> None:
    """Register these base models, or the two of these tests."""
    for base in bases or (BASE, OTHER_BASE):
        statement = "insert into base_model (id, identity) values (:id, cast(:identity as json)) on conflict do nothing"
        await execute(database, statement, id=base.id, identity=base.model_dump_json())


async def add_version(
    database: Database,
    *,
    user: str,
    adapter: str = "profile",
    tenant: str = "default",
    number: int = 1,
    base: BaseIdentity = BASE,
    rank: int = 8,
    transcripts: tuple[str, ...] = (),
    dataset: str | None = None,
    evaluation: dict[str, Any] | None = None,
    state: str = "ready",
    live: bool = False,
) -> Manifest:
    """Write one version as a publish leaves it, and perhaps name it `live`."""
    version_id = f"v{uuid.uuid4().hex}"
    manifest = Manifest(
        owner=Owner(tenant=tenant, user=user),
        adapter=adapter,
        base=base,
        lora=LoraShape(rank=rank, alpha=16, target_modules=("q_proj", "v_proj")),
        files=(
            ManifestFile(path="adapter_config.json", size_bytes=10, sha256=digest(version_id + "c")),
            ManifestFile(path="adapter_model.safetensors", size_bytes=1000, sha256=digest(version_id + "w")),
        ),
        lineage=Lineage(transcript_ids=transcripts, dataset_digest=dataset, seed=number),
        evaluation=evaluation or {},
        version_id=version_id,
        version=number,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    async with database.transaction() as session:
        repository = PublishingRepository(session)
        adapter_id = await repository.ensure_adapter(manifest.owner, adapter)
        await session.execute(
            text(
                "insert into adapter_version (version_id, adapter_id, number, state, base_id, content_digest, manifest,"
                " manifest_digest, size_bytes, created_at) values (:version_id, :adapter_id, :number, 'pending', :base,"
                " :content, cast(:manifest as json), :digest, 1010, now())"
            ),
            {
                "version_id": version_id, "adapter_id": adapter_id, "number": number, "base": base.id,
                "content": manifest.content_digest, "manifest": manifest.model_dump_json(), "digest": manifest.digest,
            },
        )  # fmt: skip
        for transcript in transcripts:
            await session.execute(
                text("insert into version_transcript (transcript_id, version_id) values (:transcript, :version_id)"),
                {"transcript": transcript, "version_id": version_id},
            )
    for step in {"pending": (), "ready": ("uploaded", "ready")}.get(state, ("uploaded", "ready", state)):
        await execute(
            database,
            "update adapter_version set state = :state, ready_at = coalesce(ready_at, now()) where version_id = :id",
            state=step,
            id=version_id,
        )
    if live:
        await execute(
            database,
            "insert into alias (adapter_id, name, version_id) values (:adapter_id, 'live', :id)"
            " on conflict (adapter_id, name) do update set version_id = excluded.version_id",
            adapter_id=adapter_id,
            id=version_id,
        )
    return manifest


async def execute(database: Database, statement: str, **values: Any) -> None:
    """Run one statement in a transaction of its own."""
    async with database.transaction() as session:
        await session.execute(text(statement), values)


def digest(value: str) -> str:
    """Return a digest that looks like a file's."""
    return hashlib.sha256(value.encode()).hexdigest()
