"""`lorry api-keys`: the keys that applications call the public API with, and how much they may call it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from lorry.context import open_context
from lorry.output import out, print_json, print_table, run
from serving.gateway.keys import NewKey, list_api_keys, make_api_key, revoke_api_key, rotate_api_key
from serving.gateway.repository import ListedKey, TenantLimit, TenantLimitRepository
from serving.gateway.scopes import EVERYTHING, Scope

app = typer.Typer(no_args_is_help=True, help="API keys of the tenant: make, look, rotate, revoke; limits.")
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
KeyId = Annotated[str, typer.Argument(help="id of the key, as `lorry api-keys list` shows it")]
_SCOPES = ", ".join(scope.value for scope in Scope)


@app.command()
def create(
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help=f"what it may be used for, repeated: {_SCOPES}; all if left out")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="what people call it")] = "",
    days: Annotated[float | None, typer.Option("--days", min=0.01, help="it ends after so many days")] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it; nobody can read it again."""
    lasts = None if days is None else timedelta(days=days)
    _show(run(_create(tuple(scope or (EVERYTHING,)), name=name, lasts=lasts), as_json=as_json), as_json=as_json)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Show the tenant's keys, the newest first; never the keys themselves."""
    keys = run(_list(), as_json=as_json)
    if as_json:
        print_json([asdict(key) for key in keys])
        return
    rows = [
        [key.key_id, key.prefix + "…", key.name, " ".join(key.scopes), f"{key.created_at:%Y-%m-%d %H:%M}", _end(key)]
        for key in keys
    ]
    print_table("API keys", ["id", "key", "name", "scopes", "made", "ends"], rows, spare=("key", "made"))


@app.command()
def rotate(
    key_id: KeyId,
    overlap_hours: Annotated[float, typer.Option("--overlap-hours", min=0, help="how long the old one stays")] = 24.0,
    as_json: Json = False,
) -> None:
    """Make a key like another one, which ends after the overlap; meanwhile both are accepted."""
    made = run(_rotate(key_id, overlap=timedelta(hours=overlap_hours)), as_json=as_json)
    _show(made, as_json=as_json)
    if not as_json:
        out.print(f"{key_id} is accepted for {overlap_hours:g} more hours", highlight=False, soft_wrap=True)


@app.command()
def revoke(key_id: KeyId, as_json: Json = False) -> None:
    """Have a key refused, within seconds."""
    run(_revoke(key_id), as_json=as_json)
    if as_json:
        print_json({"revoked": key_id})
    else:
        out.print(f"{key_id} is revoked", highlight=False)


@app.command()
def limits(
    requests_per_second: Annotated[
        float | None, typer.Option("--requests-per-second", min=0.01, help="for good, over all gateways")
    ] = None,
    burst: Annotated[int | None, typer.Option("--burst", min=1, help="requests at once after a pause")] = None,
    concurrent: Annotated[int | None, typer.Option("--concurrent", min=1, help="requests that run at once")] = None,
    as_json: Json = False,
) -> None:
    """Show what the tenant may use of all gateways together, or set it; `-` is what the gateway's settings say."""
    given = TenantLimit(requests_per_second=requests_per_second, burst=burst, concurrent=concurrent)
    limit = run(_limits(given), as_json=as_json)
    if as_json:
        print_json(asdict(limit))
        return
    shown = [limit.requests_per_second, limit.burst, limit.concurrent]
    row = ["-" if value is None else f"{value:g}" for value in shown]
    print_table("Limits", ["requests per second", "burst", "concurrent"], [row])


async def _create(scopes: tuple[str, ...], *, name: str, lasts: timedelta | None) -> NewKey:
    async with open_context(last_part="postgres") as context, context.database.transaction() as session:
        return await make_api_key(session, context.settings.tenant, scopes=scopes, name=name, lasts=lasts)


async def _list() -> list[ListedKey]:
    async with open_context(last_part="postgres") as context, context.database.reading() as session:
        return await list_api_keys(session, context.settings.tenant)


async def _rotate(key_id: str, *, overlap: timedelta) -> NewKey:
    async with open_context(last_part="postgres") as context, context.database.transaction() as session:
        return await rotate_api_key(session, context.settings.tenant, key_id, overlap=overlap)


async def _revoke(key_id: str) -> None:
    async with open_context(last_part="postgres") as context, context.database.transaction() as session:
        await revoke_api_key(session, context.settings.tenant, key_id)


async def _limits(given: TenantLimit) -> TenantLimit:
    async with open_context(last_part="postgres") as context, context.database.transaction() as session:
        repository, tenant = TenantLimitRepository(session), context.settings.tenant
        known = await repository.get(tenant)
        if given == TenantLimit():
            return known
        changed = TenantLimit(
            requests_per_second=given.requests_per_second or known.requests_per_second,
            burst=given.burst or known.burst,
            concurrent=given.concurrent or known.concurrent,
        )
        await repository.put(tenant, changed)
        return changed


def _show(made: NewKey, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(made))
    else:
        out.print(f"{made.key}", highlight=False, soft_wrap=True)
        out.print(f"id {made.key_id}; keep the key: nobody can read it again", highlight=False, soft_wrap=True)


def _end(key: ListedKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    return "never" if key.expires_at is None else f"{key.expires_at:%Y-%m-%d %H:%M}"
