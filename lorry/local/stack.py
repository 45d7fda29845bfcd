"""The parts of one machine, started in order, watched, and stopped in reverse.

A command either owns the stack (starts the parts it needs, stops them when it ends) or, when `lorry up`
owns it already, uses the parts that run. A command that needs no part of this machine owns nothing, so that
any number of them run at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

from kit.database import Database
from lorry.errors import AlreadyRunning, PartDied
from lorry.local.machine import check_machine
from lorry.local.part import RunningPart, start_part, stop_orphans, tail
from lorry.local.plan import PART_NAMES, Plan
from lorry.local.postgres import create_database
from lorry.schema import migrate

State = Literal["starting", "healthy", "stopping", "stopped"]
OnState = Callable[[str, State, float], None]
BaseDirectory = Callable[[], Path]


class Stack:
    """What runs. `ensure` starts what is missing; `watch` returns when something dies."""

    def __init__(self, plan: Plan, *, base_directory: BaseDirectory, on_state: OnState, attached: bool) -> None:
        self.plan = plan
        self._base_directory = base_directory
        self._on_state = on_state
        self._attached = attached
        self._ownership: ExitStack | None = None
        self._running: dict[str, RunningPart] = {}

    async def own(self) -> None:
        """Own the home's parts until `stop`, and stop those that a killed owner left running.

        Raises:
            AlreadyRunning: when another process owns them.
        """
        if self._ownership is None:
            with ExitStack() as owning:
                owning.enter_context(self.plan.home.ownership())
                await asyncio.to_thread(stop_orphans, self.plan.home.read_processes())
                self._ownership = owning.pop_all()

    async def ensure(self, last: str) -> None:
        """Have every part up to and including `last` run and be healthy.

        Raises:
            AlreadyRunning: when another lorry process owns the home and does not run that part, or came to own
                it after this stack was opened.
            MachineTooSmall, PortInUse, PartDied, PartUnhealthy: when a part cannot be started.
        """
        wanted = PART_NAMES[: PART_NAMES.index(last) + 1]
        if self._attached:
            self._require_running(last)
            return
        missing = tuple(name for name in wanted if name in self.plan.local_parts and name not in self._running)
        if missing:
            await self.own()
        check_machine(missing, home=self.plan.home.path)
        await self._start_together([name for name in missing if name in {"postgres", "seaweedfs"}])
        if set(missing) & {"postgres", "seaweedfs", "registry"}:
            await self._prepare_database()
        if set(missing) & {"seaweedfs", "registry"}:
            await self._prepare_bucket()
        await self._start_together([name for name in missing if name not in {"postgres", "seaweedfs"}])
        if self._ownership is not None:
            self.plan.home.write_state({name: running.part.address for name, running in self._running.items()})

    @asynccontextmanager
    async def starting(self, last: str) -> AsyncIterator[None]:
        """Have the parts up to and including `last` start while the block runs, and be healthy when it has ended.

        Raises:
            AlreadyRunning, MachineTooSmall, PortInUse, PartDied, PartUnhealthy: as `ensure`, once the block has
                ended; a block that fails itself is heard instead.
        """
        start = asyncio.create_task(self.ensure(last))
        try:
            yield
        except BaseException:
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            raise
        await start

    def will_start(self, name: str) -> bool:
        """Say whether `ensure` would start that part, which takes its time."""
        return not self._attached and name in self.plan.local_parts and name not in self._running

    def require(self, name: str) -> None:
        """Raise now what `ensure` would raise later for a part that another command should be running.

        Raises:
            AlreadyRunning: when another lorry process owns the home and does not run that part.
        """
        if self._attached:
            self._require_running(name)

    async def stop(self) -> None:
        """Stop every part that this stack started, the latest first, and own nothing any more."""
        with self._ownership or ExitStack():
            for name in reversed(list(self._running)):
                self._on_state(name, "stopping", 0.0)
                await self._running.pop(name).stop()
                self._remember()
                self._on_state(name, "stopped", 0.0)
        self._ownership = None

    def addresses(self) -> list[tuple[str, str, int]]:
        """Return (name, address, pid) of every part that this stack started."""
        return [(name, running.part.address, running.pid) for name, running in self._running.items()]

    async def watch(self) -> None:
        """Wait until a part ends by itself.

        Raises:
            PartDied: naming it, with the last lines of its log.
        """
        waits = {asyncio.create_task(running.wait()): name for name, running in self._running.items()}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        name = waits[done.pop()]
        part = self._running[name].part
        code = self._running[name].exit_code
        raise PartDied(f"{name} ended by itself with code {code}; see {part.log_path}\n{tail(part.log_path)}")

    async def _start_together(self, names: list[str]) -> None:
        for name in names:
            self._on_state(name, "starting", 0.0)
            base = self._base_directory() if name == "engine" else Path()
            part = await asyncio.to_thread(self.plan.part, name, base_directory=base)
            self._running[name] = await start_part(part)
            self._remember()
        await asyncio.gather(*(self._become_healthy(name) for name in names))

    async def _become_healthy(self, name: str) -> None:
        seconds = await self._running[name].wait_until_healthy()
        self._on_state(name, "healthy", seconds)

    async def _prepare_database(self) -> None:
        """Have the schema, which the services expect to find."""
        if "postgres" in self.plan.local_parts:
            await create_database(self.plan.home.path / "postgres", name="lorry")
        database = Database(self.plan.database)
        try:
            await migrate(database)
        finally:
            await database.close()

    async def _prepare_bucket(self) -> None:
        """Have the bucket, which the services expect to find."""
        from kit.storage import ObjectStorage  # boto3 is slow to import, and most commands start nothing

        storage = await asyncio.to_thread(ObjectStorage, self.plan.storage)
        try:
            await storage.create_bucket()
        finally:
            storage.close()

    def _remember(self) -> None:
        self.plan.home.write_processes([running.pid for running in self._running.values()])

    def _require_running(self, name: str) -> None:
        state = self.plan.home.read_state() or {}
        if name in self.plan.local_parts and name not in state:
            raise AlreadyRunning(
                f"another lorry command runs parts from {self.plan.home.path}, but not the {name};"
                " wait until it ends, or start everything with `lorry up`"
            )


@asynccontextmanager
async def open_stack(plan: Plan, *, base_directory: BaseDirectory, on_state: OnState) -> AsyncIterator[Stack]:
    """Attach to the parts that run from this home, or own it from the first part that `ensure` starts."""
    if plan.home.read_state() is not None:
        with plan.home.guest():
            yield Stack(plan, base_directory=base_directory, on_state=on_state, attached=True)
        return
    stack = Stack(plan, base_directory=base_directory, on_state=on_state, attached=False)
    try:
        yield stack
    finally:
        await stack.stop()


@asynccontextmanager
async def own_stack(plan: Plan, *, base_directory: BaseDirectory, on_state: OnState) -> AsyncIterator[Stack]:
    """Own the home's parts until the block ends, however it ends.

    Raises:
        AlreadyRunning: when another process owns them.
    """
    stack = Stack(plan, base_directory=base_directory, on_state=on_state, attached=False)
    await stack.own()
    try:
        yield stack
    finally:
        await stack.stop()
