"""`lorry engines`: which engines serve, which have fallen silent, what they hold, and what they erased."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lorry.context import open_context
from lorry.output import err, out, print_json, print_table, run
from lorry.receipts import EngineReceipts, read_receipts
from registry.client import RegistryClient
from registry.engines.schemas import EngineSummary, Holder, Tier

app = typer.Typer(help="Engines of the directory: who serves, who is silent, who holds what.")
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
_RECEIPT_COLUMNS = [
    "engine", "at", "version", "because", "ordered by", "leases", "host bytes", "slots zeroed", "disk bytes",
]  # fmt: skip
_COLUMNS = ["engine", "state", "last seen", "base", "address", *(str(tier) for tier in Tier), "requests"]


@app.callback(invoke_without_command=True)
def list_(context: typer.Context, as_json: Json = False) -> None:
    """List every engine with its base, its last sign of life and what it holds, each adapter by its fastest tier."""
    if context.invoked_subcommand is not None:
        return
    engines = run(_list(), as_json=as_json)
    if as_json:
        print_json([engine.model_dump(mode="json") for engine in engines])
    elif engines:
        rows, numeric = [row_of(engine) for engine in engines], frozenset({*Tier, "requests"})
        print_table("Engines", _COLUMNS, rows, numeric=numeric, spare=("address", "base", "requests"))
    else:
        out.print("No engine has registered; `lorry up` starts one.")


@app.command()
def holders(version_id: Annotated[str, typer.Argument(help="opaque id of a version")], as_json: Json = False) -> None:
    """Say which living engines hold a version, in which tier at the fastest, and how many requests run on it."""
    found = run(_holders(version_id), as_json=as_json)
    if as_json:
        print_json([holder.model_dump(mode="json") for holder in found])
        return
    if not found:
        out.print(f"No living engine holds {version_id}.", highlight=False)
        return
    rows = [[holder.engine_id, holder.state, str(holder.tier), str(holder.leases)] for holder in found]
    print_table(
        f"Holders of {version_id}", ["engine", "state", "tier", "requests"], rows, numeric=frozenset({"requests"})
    )


@app.command()
def receipts(
    version_id: Annotated[str | None, typer.Argument(help="opaque id of a version; all when left out")] = None,
    as_json: Json = False,
) -> None:
    """Say what erasures and suspensions did on every living engine, since it started: its last 256."""
    found = run(_receipts(version_id), as_json=as_json)
    if as_json:
        print_json(
            [{"engine_id": each.engine_id, "receipts": each.receipts, "failure": each.failure} for each in found]
        )
        return
    rows = [receipt_row(each.engine_id, receipt) for each in found for receipt in each.receipts]
    numeric = frozenset({"leases", "host bytes", "slots zeroed", "disk bytes"})
    spare = ("leases", "ordered by", "at", "slots zeroed", "host bytes", "disk bytes")
    if rows:
        print_table("Receipts", _RECEIPT_COLUMNS, rows, numeric=numeric, spare=spare)
    else:
        out.print(
            "No engine has erased or withheld it since it started." if version_id else "No engine has erased anything."
        )
    for each in found:
        if each.failure is not None:
            err.print(f"{each.engine_id}: {each.failure}", highlight=False)


@app.command()
def forget(engine_id: Annotated[str, typer.Argument(help="an engine that lapsed or left")]) -> None:
    """Take an engine that will not come back out of the directory, and so out of the alerts."""
    run(_forget(engine_id))
    out.print(f"forgot {engine_id}", highlight=False)


async def every_engine(registry: RegistryClient) -> list[EngineSummary]:
    """Return all engines of the directory, whatever their state."""
    engines: list[EngineSummary] = []
    cursor: str | None = None
    while True:
        page = await registry.engines.list(cursor=cursor, limit=1000)
        engines.extend(page.engines)
        cursor = page.next_cursor
        if cursor is None:
            return engines


async def _list() -> list[EngineSummary]:
    async with open_context() as context:
        return await every_engine(context.registry)


async def _holders(version_id: str) -> tuple[Holder, ...]:
    async with open_context() as context:
        return await context.registry.engines.holders(version_id)


async def _receipts(version_id: str | None) -> list[EngineReceipts]:
    engines = await _list()
    async with open_context() as context:
        return await read_receipts(engines, token=context.plan.engine_token, version_id=version_id)


async def _forget(engine_id: str) -> None:
    async with open_context() as context:
        await context.registry.engines.forget(engine_id)


def row_of(engine: EngineSummary) -> list[str]:
    """Return the table's cells; a lapsed engine stands out, since it serves no adapter."""
    return [
        engine.id,
        "LAPSED" if engine.state == "lapsed" else engine.state,
        f"{ago(engine.silent_seconds)} ago",
        engine.base_id or "not registered",
        engine.address or "—",
        *(str(engine.held.get(tier, 0)) for tier in Tier),
        str(engine.leases),
    ]


def receipt_row(engine_id: str, receipt: dict[str, Any]) -> list[str]:
    """Return the table's cells; a dash stands for what was not touched."""
    memory = receipt["memory"] or {}
    removal = memory.get("removal", {})
    counts = (memory.get("leases"), removal.get("host_bytes"), removal.get("slots_zeroed"), receipt["disk_bytes"])
    return [
        engine_id,
        receipt["at"],
        receipt["version_id"],
        receipt["because"],
        receipt["ordered_by"],
        *("—" if count is None else str(count) for count in counts),
    ]


def ago(seconds: float) -> str:
    """Return a duration in the largest unit of which there are two or more."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
