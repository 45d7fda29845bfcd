"""`lorry up`: everything on one machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import shlex
import signal
from collections.abc import Sequence
from functools import partial

from rich.text import Text

from kit.background import until_told
from kit.database import Database
from lorry.context import announce, base_directory, make_plan, tell
from lorry.erasure.conducting import rooms_of
from lorry.erasure.conductor import Conductor
from lorry.erasure.stores import stores
from lorry.keys import local_api_key
from lorry.local.ledger import User
from lorry.local.plan import PART_NAMES, Plan
from lorry.local.stack import Stack, open_stack
from lorry.marking import marking
from lorry.output import err, out, print_table, run
from registry.client import RegistryClient

_STEP_SECONDS = 5.0


def up() -> None:
    """Start PostgreSQL, SeaweedFS, the registry, one engine, the gateway and an extraction worker; stop on Ctrl-C.

    State lives in LORRY_HOME (default ~/.lorry) and survives a restart; each part's log is in its logs folder. What
    other commands use when this one is stopped goes on, and the last of them stops it.
    """
    run(_up())


async def _up() -> None:
    plan = make_plan()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    err.print(f"Starting Lorry from {plan.home.path} (logs in {plan.home.logs})")
    base = partial(base_directory, plan)
    async with open_stack(plan, base_directory=base, on_state=announce, on_wait=tell) as stack:
        starting = asyncio.create_task(stack.ensure(PART_NAMES[-1]))
        if await _unless_stopped(starting, stop):
            await _print_addresses(plan, stack)
            erasing = asyncio.create_task(_conduct_erasures(plan, stop))
            watching = asyncio.create_task(stack.watch())
            try:
                await until_told(stop, watching, erasing, of="lorry up")
                err.print("stopping …")
            finally:
                stop.set()
                watching.cancel()
                await let_end(erasing, seconds=_STEP_SECONDS)
        tell_who_goes_on(await stack.stop())


async def _conduct_erasures(plan: Plan, stop: asyncio.Event) -> None:
    """Erase whom somebody asks to be erased, over the API as well, for as long as Lorry is up.

    What an earlier release has stored is marked meanwhile.
    """
    database = Database(plan.database)
    try:
        async with RegistryClient(
            url=plan.registry_url, token=plan.registry_token, actor=plan.settings.actor
        ) as registry:
            conductor = Conductor(database, stores(rooms_of(plan, database=database, registry=registry)))
            async with marking(database):
                await conductor.run(stop)
    finally:
        await database.close()


async def let_end(erasing: asyncio.Task[None], *, seconds: float) -> None:
    """Let the conductor finish what it is at, for a moment; cut off at any point, the next `lorry up` goes on."""
    await asyncio.wait({erasing}, timeout=seconds)
    erasing.cancel()
    await asyncio.gather(erasing, return_exceptions=True)


def tell_who_goes_on(users: Sequence[User]) -> None:
    """Say which parts were not stopped, because other commands use them."""
    if users:
        left = ", ".join(name for name in PART_NAMES if any(name in user.parts for user in users))
        using = "; ".join(map(str, users))
        err.print(Text(f"{left} go on for other commands and end with the last of them: {using}"), soft_wrap=True)


async def _unless_stopped(task: asyncio.Task[None], stop: asyncio.Event) -> bool:
    """Wait for `task` or for Ctrl-C; say whether the task ended first. What it raised rises here."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    err.print("stopping …")
    return False


async def _print_addresses(plan: Plan, stack: Stack) -> None:
    rows = [[name, "healthy", address, str(pid)] for name, address, pid in stack.addresses()]
    print_table("Lorry is up", ["part", "state", "address", "pid"], rows, numeric=frozenset({"pid"}))
    key = await local_api_key(plan)
    out.file.write(addresses_text(plan, key))
    out.file.flush()


def addresses_text(plan: Plan, key: str) -> str:
    """Return what to type in another shell; the key stands in one line, whatever the terminal's width."""
    return (
        f"In another shell, with the API key of tenant {plan.settings.tenant}:\n"
        f"  export LORRY_URL={plan.gateway_url} LORRY_KEY={key}\n"
        '  curl -H "Authorization: Bearer $LORRY_KEY" "$LORRY_URL/v1/users/USER/profile"\n'
        "For operators, the registry (docs/registry-api.md):\n"
        f'  curl -H "Authorization: Bearer {_operator_token(plan)}" {plan.registry_url}/v1/bases\n'
        "and the engine (docs/engine.md):\n"
        f'  curl -H "Authorization: Bearer {_engine_token(plan)}" {plan.engine_url}/lorry/residency\n'
        "Ctrl-C stops everything that no other command uses.\n"
    )


def _operator_token(plan: Plan) -> str:
    """Return what a shell makes the registry's token of, so that the token itself is not printed."""
    if plan.settings.registry_token is not None:
        return "$LORRY_REGISTRY_TOKEN"
    return _reading(plan, "registry-token")


def _engine_token(plan: Plan) -> str:
    """Return what a shell makes the engine's token of."""
    return "$LORRY_ENGINE_TOKEN" if plan.settings.engine_token is not None else _reading(plan, "engine-token")


def _reading(plan: Plan, secret: str) -> str:
    return f"$(cat {shlex.quote(str(plan.home.path / 'secrets' / secret))})"
