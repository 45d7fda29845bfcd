"""`lorry adapters`: what the registry holds, for people and for scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lorry.context import base_directory, open_context
from lorry.output import Bar, out, print_json, print_table, progress, run
from registry.catalog.schemas import AdapterSummary
from registry.client import RegistryClient, draft_from_directory
from registry.manifest import DEFAULT_ADAPTER, LIVE, AdapterRef, Manifest, Owner

app = typer.Typer(no_args_is_help=True, help="List, show, push and pull adapters of the registry.")
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Reference = Annotated[str, typer.Argument(help="USER, or users/USER[/ADAPTER][@ALIAS or @VERSION]")]


@app.command("list")
def list_(
    user: Annotated[str | None, typer.Option(help="only this user's adapters")] = None, as_json: Json = False
) -> None:
    """List the tenant's adapters with their live version."""
    rows = run(_list(user), as_json=as_json)
    if as_json:
        print_json(rows)
        return
    columns = ["user", "adapter", "live", "versions", "published", "held-out loss"]
    table = [[str(row[column] if row[column] is not None else "—") for column in columns] for row in rows]
    print_table("Adapters", columns, table, numeric=frozenset({"live", "versions", "held-out loss"}))


@app.command()
def show(reference: Reference, as_json: Json = False) -> None:
    """Show one version's manifest: base, files, lineage, evaluation."""
    manifest = run(_resolve(reference), as_json=as_json)
    if as_json:
        print_json(manifest.model_dump(mode="json"))
        return
    print_table(f"{reference}: version {manifest.version}", ["field", "value"], _describe(manifest))


@app.command()
def push(
    directory: Annotated[Path, typer.Argument(help="directory with adapter_config.json and adapter_model.safetensors")],
    user: Annotated[str, typer.Option(help="user who owns the adapter")],
    adapter: Annotated[str, typer.Option(help="name of the adapter")] = DEFAULT_ADAPTER,
    live: Annotated[bool, typer.Option("--live", help="let `live` point to it when it is published")] = False,
    as_json: Json = False,
) -> None:
    """Publish a PEFT LoRA directory that was trained elsewhere for this base model."""
    manifest = run(_push(directory, user=user, adapter=adapter, live=live), as_json=as_json)
    if as_json:
        print_json(manifest.model_dump(mode="json"))
    else:
        out.print(
            f"published users/{user}/{adapter} version {manifest.version} ({manifest.version_id})", highlight=False
        )


@app.command()
def pull(
    reference: Reference, directory: Annotated[Path, typer.Argument(help="new directory to write the files to")]
) -> None:
    """Download one version's verified files."""
    manifest = run(_pull(reference, directory))
    out.print(f"version {manifest.version} of {reference} is in {directory}", highlight=False)


async def _list(user: str | None) -> list[dict[str, Any]]:
    async with open_context() as context:
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = await context.registry.list_adapters(context.settings.tenant, user=user, cursor=cursor)
            for adapter in page.adapters:
                rows.append(await _summarise(context.registry, adapter))
            cursor = page.next_cursor
            if cursor is None:
                return rows


async def _summarise(registry: RegistryClient, adapter: AdapterSummary) -> dict[str, Any]:
    versions = await registry.list_versions(adapter.owner, adapter.adapter)
    live_id = adapter.aliases.get(LIVE)
    live = (await registry.get_version(live_id)).manifest if live_id else None
    loss = live.evaluation.get("held_out", {}).get("own_loss") if live else None
    return {
        "user": adapter.owner.user,
        "adapter": adapter.adapter,
        "live": live.version if live else None,
        "versions": len(versions),
        "published": f"{live.created_at:%Y-%m-%d %H:%M}" if live else None,
        "held-out loss": f"{loss:.3f}" if loss is not None else None,
    }


async def _resolve(reference: str) -> Manifest:
    async with open_context() as context:
        ref = AdapterRef.parse(reference, tenant=context.settings.tenant)
        return (await context.registry.resolve(ref)).manifest


async def _push(directory: Path, *, user: str, adapter: str, live: bool) -> Manifest:
    from training.base_models import identify_base

    async with open_context() as context:
        owner = Owner(tenant=context.settings.tenant, user=user)
        folder = base_directory(context.plan)
        base = identify_base(folder)
        draft = draft_from_directory(directory, owner=owner, adapter=adapter, base=base, base_directory=folder)
        await context.registry.register_base(base)
        with progress() as bars:
            bar = Bar(bars, "publishing")
            manifest = await context.registry.publish(directory, draft=draft, on_progress=bar)
            bar.finish()
        if live:
            held = await context.registry.get_alias(owner, adapter, LIVE)
            if held != manifest.version_id:
                await context.registry.move_alias(
                    owner, adapter, LIVE, version_id=manifest.version_id, expected_version_id=held
                )
        return manifest


async def _pull(reference: str, directory: Path) -> Manifest:
    async with open_context() as context:
        resolution = await context.registry.resolve(AdapterRef.parse(reference, tenant=context.settings.tenant))
        await context.registry.download(resolution, directory)
        return resolution.manifest


def _describe(manifest: Manifest) -> list[list[str]]:
    lineage = manifest.lineage
    return [
        ["version id", manifest.version_id],
        ["created", f"{manifest.created_at:%Y-%m-%d %H:%M:%S %Z}"],
        ["manifest digest", manifest.digest],
        ["base", f"{manifest.base.id} ({manifest.base.weights_sha256[:12]}…)"],
        ["rank, alpha", f"{manifest.lora.rank}, {manifest.lora.alpha:g}"],
        ["layers", ", ".join(manifest.lora.target_modules)],
        *[[file.path, f"{file.size_bytes:,} bytes, {file.sha256[:12]}…"] for file in manifest.files],
        ["dataset", (lineage.dataset_digest or "—")[:24]],
        ["transcripts", str(len(lineage.transcript_ids))],
        ["question writer", lineage.question_writer or "—"],
        ["seed", str(lineage.seed if lineage.seed is not None else "—")],
        *[
            [f"evaluation: {name}", f"{value:.4f}" if isinstance(value, float) else str(value)]
            for name, value in manifest.evaluation.items()
            if not isinstance(value, dict | list)
        ],
    ]
