"""The parts of one machine: started in order by who needs them first, watched, stopped by who needs them last.

A command that needs a part which does not run starts it; one that needs what runs already, of `lorry up` or of any
other command, uses that. A command that ends leaves what others still use, and stops the rest. A command that needs no
part of this machine touches none, so that any number of them run at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from kit.database import Database
from kit.errors import LorryError
from kit.together import all_of
from lorry.errors import HomeBusy, PartDied
from lorry.local.ledger import Entry, Ledger, User, withdrawn
from lorry.local.logs import trim_logs
from lorry.local.machine import check_machine
from lorry.local.part import Part, RunningPart, start_part, stop_orphans, tail
from lorry.local.plan import PART_NAMES, Plan
from lorry.local.postgres import create_database
from lorry.processes import process_start
from lorry.schema import migrate

State = Literal["starting", "healthy", "stopping", "stopped"]
OnState = Callable[[str, State, float], None]
BaseDirectory = Callable[[], Path]
_STORES = ("postgres", "seaweedfs")
_WATCH_SECONDS = 0.5
_TRIM_SECONDS = 60.0
PATIENCE_SECONDS = 60.0


class Stack:
    """What one command uses. `ensure` starts what is missing; `watch` returns when something dies."""

    def __init__(
        self,
        plan: Plan,
        *,
        base_directory: BaseDirectory,
        on_state: OnState,
        on_wait: Callable[[str], None],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.plan = plan
        self.ledger = Ledger(plan.home)
        self._base_directory = base_directory
        self._on_state = on_state
        self._on_wait = on_wait
        self._patience_seconds = patience_seconds
        self._user: User | None = None
        self._used: tuple[str, ...] = ()
        self._own: dict[str, RunningPart] = {}
        self._trims_at = 0.0

    async def ensure(self, last: str) -> None:
        """Have every part up to and including `last` run and be healthy; what runs already is used.

        Raises:
            HomeBusy: another command was starting or stopping parts for all of the patience, or runs them at
                other addresses than the settings say.
            MachineTooSmall, PortInUse, PartDied, PartUnhealthy: a part cannot be started.
        """
        wanted = tuple(name for name in PART_NAMES[: PART_NAMES.index(last) + 1] if name in self.plan.local_parts)
        wanted = tuple(name for name in PART_NAMES if name in {*wanted, *self._used})
        if not wanted:
            return
        first = self._user is None
        self._user = self.ledger.enter(wanted, key=self._user.key if self._user else None)
        if not self._runs(wanted, first=first):
            async with self.ledger.locked(
                "starting parts",
                patience_seconds=self._patience_seconds,
                on_wait=self._on_wait,
                enough=lambda: self._runs(wanted, first=first),
            ) as needed:
                if needed and not self._runs(wanted, first=first):
                    await self._start(wanted, first=first)
        self._require_same_addresses(wanted)
        self._used = wanted

    @asynccontextmanager
    async def starting(self, last: str) -> AsyncIterator[None]:
        """Have the parts up to and including `last` start while the block runs, and be healthy when it has ended.

        Raises:
            HomeBusy, MachineTooSmall, PortInUse, PartDied, PartUnhealthy: as `ensure`, once the block has
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
        runs = {entry.name for entry in self.ledger.entries() if entry.ready}
        return name in self.plan.local_parts and name not in runs

    async def stop(self) -> list[User]:
        """Stop every part that nobody else uses, the latest first; return the commands that use the others."""
        if self._user is None:
            return []
        user, self._user, self._used = self._user, None, ()
        self.ledger.leave(user)
        try:
            return await self._leave()
        finally:
            for running in self._own.values():
                running.let_go()

    async def _leave(self) -> list[User]:
        if others := self.ledger.users():
            if not self.ledger.try_lock("stopping parts"):
                return others  # whoever starts or stops parts now is one of them, or sees that we have left
            try:
                await self._stop_unused()
            finally:
                self.ledger.unlock()
            return others
        async with self.ledger.locked(
            "stopping parts",
            patience_seconds=self._patience_seconds,
            on_wait=self._on_wait,
            enough=lambda: False,
        ):
            await self._stop_unused()
        return self.ledger.users()

    def addresses(self) -> list[tuple[str, str, int]]:
        """Return (name, address, pid) of every part that this stack uses, whoever started it."""
        return [(entry.name, entry.address, entry.pid) for entry in self.ledger.entries() if entry.name in self._used]

    def dead(self) -> list[str]:
        """Return which of the parts that this stack uses have ended."""
        alive = {entry.name for entry in self.ledger.entries()}
        return [name for name in self._used if name not in alive]

    async def watch(self) -> None:
        """Wait until a part ends by itself.

        Raises:
            PartDied: naming it, with the last lines of its log.
        """
        while not (dead := self.dead()):
            await self._look_after_logs()
            await asyncio.sleep(_WATCH_SECONDS)
        if (own := self._own.get(dead[0])) is not None:
            with suppress(TimeoutError):  # it looks ended a moment before its parent can learn its code
                await asyncio.wait_for(own.wait(), 10 * _WATCH_SECONDS)
        raise PartDied(f"{self._ended(dead[0])}\n{tail(self._log(dead[0]))}")

    async def keep(self) -> None:
        """Start again what ends by itself, until cancelled; a start that fails is tried again later."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                await self._look_after_logs()
                if dead := self.dead():
                    self._on_wait(f"{self._ended(dead[0])}; starting it again …")
                    await self.ensure(self._used[-1])
            except Exception as exc:  # a full disk, a database that is still starting: nobody else would try again
                why = exc.message if isinstance(exc, LorryError) else f"it was not started: {exc!r}"
                self._on_wait(f"{why}; trying again in a moment")
                await asyncio.sleep(10 * _WATCH_SECONDS)

    async def _look_after_logs(self) -> None:
        """Keep logs from growing without end, now and then."""
        if time.monotonic() >= self._trims_at:
            self._trims_at = time.monotonic() + _TRIM_SECONDS
            await asyncio.to_thread(trim_logs, self.plan.home)

    # ----- starting

    def _runs(self, wanted: Sequence[str], *, first: bool) -> bool:
        """Say whether all of these can be used as they are.

        Parts that no command uses are of one that was killed: they are started anew, with the settings of now.
        """
        ready = {entry.name for entry in self.ledger.entries() if entry.ready}
        return ready.issuperset(wanted) and not (first and self._are_orphans())

    def _are_orphans(self) -> bool:
        assert self._user is not None
        return self._user.key not in self.ledger.kept_for() and not self.ledger.users(but=self._user)

    async def _start(self, wanted: Sequence[str], *, first: bool) -> None:
        entries = self.ledger.entries()
        if first and entries and self._are_orphans():
            await asyncio.to_thread(stop_orphans, [process for entry in entries if (process := entry.process)])
            entries = []
        self._write(entries)
        ready = {entry.name for entry in entries if entry.ready}
        missing = tuple(name for name in wanted if name not in ready)
        running = {entry.name for entry in entries}
        check_machine(tuple(name for name in missing if name not in running), home=self.plan.home.path)
        await asyncio.to_thread(trim_logs, self.plan.home)
        await self._start_together([name for name in missing if name in _STORES])
        if set(missing) & {"postgres", "seaweedfs", "registry"}:
            await self._prepare_database()
        if set(missing) & {"seaweedfs", "registry"}:
            await self._prepare_bucket()
        self._mark_ready([name for name in missing if name in _STORES])
        others = [name for name in missing if name not in _STORES]
        await self._start_together(others)
        self._mark_ready(others)

    async def _start_together(self, names: list[str]) -> None:
        running: dict[str, RunningPart] = {}
        for name in names:
            self._on_state(name, "starting", 0.0)
            found = next((entry for entry in self.ledger.entries() if entry.name == name), None)
            unpacks = name == "engine" and found is None
            base = await asyncio.to_thread(self._base_directory) if unpacks else Path()
            part = await asyncio.to_thread(self.plan.part, name, base_directory=base)
            process = found.process if found else None
            running[name] = RunningPart(part, process) if process else await self._started(part)
        await all_of(self._become_healthy(name, each) for name, each in running.items())

    async def _started(self, part: Part) -> RunningPart:
        running = self._own[part.name] = await start_part(part)
        started = process_start(running.pid) or 0.0
        entry = Entry(name=part.name, pid=running.pid, started=started, address=part.address)
        self._write([*self.ledger.entries(), entry])
        return running

    async def _become_healthy(self, name: str, running: RunningPart) -> None:
        seconds = await running.wait_until_healthy()
        self._on_state(name, "healthy", seconds)

    def _mark_ready(self, names: Sequence[str]) -> None:
        self._write([replace(each, ready=each.ready or each.name in names) for each in self.ledger.entries()])

    def _write(self, entries: Sequence[Entry]) -> None:
        self.ledger.write(sorted(entries, key=lambda entry: PART_NAMES.index(entry.name)))

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

    def _require_same_addresses(self, wanted: Sequence[str]) -> None:
        """Refuse parts that run where the settings do not look for them."""
        mine = {
            "seaweedfs": f"http://127.0.0.1:{self.plan.seaweed_ports.s3}",
            "registry": self.plan.registry_url,
            "engine": self.plan.engine_url,
            "gateway": self.plan.gateway_url,
        }
        for entry in self.ledger.entries():
            expected = mine.get(entry.name, entry.address)
            if entry.name in wanted and entry.address != expected:
                using = "; ".join(map(str, self.ledger.users(but=self._user)))
                raise HomeBusy(
                    f"the {entry.name} of {self.plan.home.path} runs at {entry.address}, and the settings say"
                    f" {expected}: set LORRY_PORT_BASE and LORRY_GATEWAY_PORT as they were when it was started, or end"
                    f" what uses it ({using})"
                )

    # ----- stopping

    async def _stop_unused(self) -> None:
        """Stop what no command uses, under the lock."""
        before = self.ledger.entries()
        unused = self._unused(before, self.ledger.users())
        self.ledger.write(withdrawn(before, unused))
        users = self.ledger.users()  # again: who came since then has seen what was withdrawn, and waits for the lock
        unused = self._unused(before, users)
        left = [entry for entry in before if entry.name not in unused]
        stopping = [entry for entry in before if entry.name in unused]
        for entry in reversed(stopping):
            self._on_state(entry.name, "stopping", 0.0)
            if (running := self._part_of(entry)) is not None:
                await running.stop()
            self._own.pop(entry.name, None)
            self._on_state(entry.name, "stopped", 0.0)
        alive = {entry.name for entry in before}
        for name in [name for name in self._own if name not in alive]:
            await self._own.pop(name).stop()  # it died, and may have left children
        self.ledger.write(left, kept_for=users)

    def _unused(self, entries: Sequence[Entry], users: Sequence[User]) -> list[str]:
        used = {name for user in users for name in user.parts}
        return [entry.name for entry in entries if entry.name not in used]

    def _part_of(self, entry: Entry) -> RunningPart | None:
        """Return the part that an entry is about, whoever started it; None when it has just ended."""
        own, process = self._own.get(entry.name), entry.process
        if own is not None and own.pid == entry.pid:
            return own
        if process is None:
            return None
        return RunningPart(self.plan.part(entry.name, base_directory=Path()), process)

    # ----- words

    def _ended(self, name: str) -> str:
        own = self._own.get(name)
        code = f" with code {own.exit_code}" if own is not None and own.exit_code is not None else ""
        return f"{name} ended by itself{code}; see {self._log(name)}"

    def _log(self, name: str) -> Path:
        return self.plan.home.logs / f"{name}.log"


@asynccontextmanager
async def open_stack(
    plan: Plan, *, base_directory: BaseDirectory, on_state: OnState, on_wait: Callable[[str], None]
) -> AsyncIterator[Stack]:
    """Have a stack whose parts are left when the block ends, however it ends: to other commands, or stopped."""
    stack = Stack(plan, base_directory=base_directory, on_state=on_state, on_wait=on_wait)
    try:
        yield stack
    finally:
        await stack.stop()
