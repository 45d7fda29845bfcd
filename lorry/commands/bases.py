"""`lorry bases`: the base models that adapters may be made for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from lorry.context import open_context
from lorry.errors import NothingToDo
from lorry.output import err, out, print_json, print_table, run
from registry.manifest import BaseIdentity, RegisteredBase

app = typer.Typer(no_args_is_help=True, help="List, show and register base models.")
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the base models that adapters may be made for."""
    bases = run(_list(), as_json=as_json)
    if as_json:
        print_json([base.model_dump(mode="json") for base in bases])
        return
    columns = ["id", "revision", "layers", "hidden size", "weights", "publishing"]
    print_table("Base models", columns, [_row(base) for base in bases], numeric=frozenset({"layers", "hidden size"}))


@app.command()
def show(
    base_id: Annotated[str, typer.Argument(metavar="ID", help="as in `lorry bases list`")], as_json: Json = False
) -> None:
    """Show one base model: digests and sizes."""
    base = run(_show(base_id), as_json=as_json)
    if as_json:
        print_json(base.model_dump(mode="json"))
        return
    rows = [["revision", base.revision or "—"], *[[name, value] for name, value in base.digests().items()]]
    if base.shape is not None:
        rows += [[name, str(value)] for name, value in base.shape.model_dump().items() if value is not None]
    print_table(base.id, ["field", "value"], rows)


@app.command()
def add(
    directory: Annotated[Path, typer.Argument(help="directory of a base model saved by transformers")],
    base_id: Annotated[str | None, typer.Option("--id", help="its name; the directory's when omitted")] = None,
    revision: Annotated[str | None, typer.Option(help="its revision, for people")] = None,
    as_json: Json = False,
) -> None:
    """Register a base model; the same one again is no error, another one under its id is refused.

    The same one is one of the same content: it keeps the revision that it was registered with.
    """
    base = run(_add(directory, base_id=base_id, revision=revision), as_json=as_json)
    if as_json:
        print_json(base.model_dump(mode="json"))
        return
    out.print(f"{base.id} is registered", markup=False, highlight=False)
    if revision not in (None, base.revision):
        known = f"revision {base.revision}" if base.revision else "no revision"
        note = f"note: it was registered before, with {known}, and keeps that; --revision {revision} changed nothing"
        err.print(note, markup=False, highlight=False)


async def _list() -> list[RegisteredBase]:
    async with open_context() as context:
        return await context.registry.list_bases()


async def _show(base_id: str) -> RegisteredBase:
    async with open_context() as context:
        return await context.registry.show_base(base_id)


async def _add(directory: Path, *, base_id: str | None, revision: str | None) -> RegisteredBase:
    if not directory.is_dir():
        raise NothingToDo(f"{directory} is no directory", field="directory")
    name = base_id or directory.resolve().name
    identity = await asyncio.to_thread(BaseIdentity.of_directory, directory, id=name, revision=revision)
    config = await asyncio.to_thread((directory / "config.json").read_bytes)
    async with open_context() as context:
        return await context.registry.register_base(identity, config=config)


def _row(base: RegisteredBase) -> list[str]:
    shape = base.shape
    return [
        base.id,
        base.revision or "—",
        str(shape.num_hidden_layers) if shape else "—",
        str(shape.hidden_size) if shape else "—",
        f"{base.weights_sha256[:12]}…",
        "open" if shape else "closed: registered without its config.json",
    ]
