"""`lorry keys`: the master keys that every user's data key is wrapped under."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from kit.master_keys import KeyFile, MasterKeys, open_master_keys
from lorry.context import Context, make_plan, open_context
from lorry.errors import NothingToDo
from lorry.output import Bar, confirm, err, out, print_json, print_table, progress, run
from registry.sealing.repository import SealingRepository
from registry.sealing.rotation import Rotation, add_master_key, check_forgettable, forget_master_key, rewrap_data_keys

app = typer.Typer(no_args_is_help=True, help="Master keys: look, make, add, rotate, forget.")
_ACTOR = "lorry"
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


@dataclass(frozen=True, kw_only=True)
class MasterKeyStatus:
    """One master key: what it is for now, whether this machine has it, and how many data keys it wraps."""

    id: str
    primary: bool
    next: bool
    held: bool
    data_keys: int


@app.command()
def init(as_json: Json = False) -> None:
    """Make the master key file unless it exists; with KMS, try the key.

    The file opens everything that is sealed. Whoever loses it loses all adapters: keep a copy elsewhere.
    """
    path, primary = run(_init(), as_json=as_json)
    if as_json:
        print_json({"file": path, "primary": primary})
        return
    if path:
        out.print(f"Master key file: {path}", highlight=False, soft_wrap=True)
        out.print("Keep a copy elsewhere: without it nothing that is sealed can be read.")
    out.print(f"Primary master key: {primary}", highlight=False, soft_wrap=True)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Show the master keys and how many data keys each wraps; exit code 1 when one that is needed is not held."""
    keys = run(_list(), as_json=as_json)
    if as_json:
        print_json([asdict(key) for key in keys])
    else:
        rows = [[key.id, _role(key), str(key.data_keys)] for key in keys]
        print_table("Master keys", ["id", "role", "data keys"], rows, numeric=frozenset({"data keys"}))
    if any(key.data_keys and not key.held for key in keys):
        raise typer.Exit(1)


@app.command()
def add(as_json: Json = False) -> None:
    """Add a master key that wraps nothing yet, for the next rotation; again before it, nothing is added.

    With registries on several hosts: `lorry keys add`, copy the key file to every host, then `lorry keys rotate`. A
    host without the new key could not open what is wrapped under it; its /readyz would say so.
    """
    key_id = run(_add(), as_json=as_json)
    if as_json:
        print_json({"next": key_id})
    else:
        out.print(f"Next master key: {key_id}", highlight=False, soft_wrap=True)
        out.print("Copy the key file to every host that runs a registry, then: lorry keys rotate")


@app.command()
def rotate(
    finish: Annotated[
        bool, typer.Option("--finish", help="add no new key; wrap what is not yet under the primary one")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the key of `lorry keys add` the primary one, and wrap every data key under it; no adapter is touched.

    Where no key was added before, one is now: right for one host only, since others could not open what it wraps. Copy
    the key file to every host afterwards too, so that new users' keys are wrapped under the new key everywhere.

    With KMS nothing is added: what another key wrapped (the file's, or KMS's before) is wrapped under the one that is
    set. A run that was interrupted is completed by `--finish`. The old key stays until `lorry keys forget`.
    """
    rotation = run(_rotate(finish=finish), as_json=as_json)
    if as_json:
        print_json(asdict(rotation))
    else:
        out.print(f"{rotation.rewrapped} data keys are wrapped under {rotation.master_key_id}", highlight=False)
    if rotation.unreadable:
        err.print(f"{len(rotation.unreadable)} data keys could not be opened; see `lorry keys list`", style="red")
        raise typer.Exit(1)


@app.command()
def forget(
    key_id: Annotated[str, typer.Argument(help="id of a master key that wraps nothing any more")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: Json = False,
) -> None:
    """Remove a key from the key file for good: with it, old backups of the database open nothing any more."""
    run(_forget(key_id, yes=yes), as_json=as_json)
    if as_json:
        print_json({"forgotten": key_id})
    else:
        out.print(f"{key_id} is forgotten", highlight=False)


async def _init() -> tuple[str | None, str]:
    plan = await asyncio.to_thread(make_plan)
    settings = plan.master_keys
    if settings.master_key_file and not settings.kms_key_id:
        await asyncio.to_thread(KeyFile.create, settings.master_key_file)
    keys = await asyncio.to_thread(open_master_keys, settings)
    return str(settings.master_key_file) if settings.master_key_file else None, await keys.primary_id()


async def _list() -> list[MasterKeyStatus]:
    async with _opened() as (context, keys):
        async with context.database.reading() as session:
            counts = await SealingRepository(session).count_by_master_key()
        primary, path = await keys.primary_id(), context.plan.master_keys.master_key_file
        ring = KeyFile(path).ring() if path else None
        ids = sorted({primary, *(ring.keys if ring else ()), *counts}, key=lambda key_id: (key_id != primary, key_id))
        return [
            MasterKeyStatus(
                id=key_id,
                primary=key_id == primary,
                next=key_id == ring.next if ring else False,
                held=keys.holds(key_id),
                data_keys=counts.get(key_id, 0),
            )
            for key_id in ids
        ]


async def _add() -> str:
    async with _opened() as (context, keys):
        if not isinstance(keys, KeyFile):
            raise NothingToDo("the master key is in KMS, where every host finds it; make the next one there")
        return await add_master_key(context.database, keys, actor=_ACTOR)


async def _rotate(*, finish: bool) -> Rotation:
    async with _opened() as (context, keys):
        if isinstance(keys, KeyFile) and not finish:
            await asyncio.to_thread(keys.add_primary)
        with progress() as bars:
            bar = Bar(bars, "data keys")
            return await rewrap_data_keys(context.database, keys, actor=_ACTOR, on_progress=bar)


async def _forget(key_id: str, *, yes: bool) -> None:
    async with _opened() as (context, _):
        path = context.plan.master_keys.master_key_file
        if path is None:
            raise NothingToDo("the master key is in KMS; schedule its deletion there", field="key_id")
        ring = KeyFile(path)
        await check_forgettable(context.database, ring, key_id)
        confirm(f"Forget {key_id}? Backups of the database that it wraps keys in open nothing any more.", yes=yes)
        await forget_master_key(context.database, ring, key_id, actor=_ACTOR)


@asynccontextmanager
async def _opened() -> AsyncIterator[tuple[Context, MasterKeys]]:
    async with open_context(last_part="postgres") as context:
        yield context, await asyncio.to_thread(open_master_keys, context.plan.master_keys)


def _role(key: MasterKeyStatus) -> str:
    if key.primary:
        return "primary"
    if key.next:
        return "next"
    if key.held:
        return "old" if key.data_keys else "old, can be forgotten"
    return "MISSING" if key.data_keys else "unknown"
