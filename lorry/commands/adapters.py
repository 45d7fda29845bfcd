"""`lorry adapters`: what the registry holds, for people and for scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorry.commands import adapters_read
from lorry.context import base_directory, open_context
from lorry.output import EXIT_CODES, Bar, out, print_json, progress, run
from registry.client import draft_from_directory
from registry.manifest import DEFAULT_ADAPTER, LIVE, AdapterRef, Manifest, Owner

app = typer.Typer(
    no_args_is_help=True, help="List, show, compare, push and pull adapters of the registry.", epilog=EXIT_CODES
)
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Reference = Annotated[str, typer.Argument(help="USER, or users/USER[/ADAPTER][@ALIAS or @VERSION]")]


app.command("list")(adapters_read.list_)
app.command()(adapters_read.show)
app.command()(adapters_read.versions)
app.command()(adapters_read.diff)
app.command()(adapters_read.lineage)


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
