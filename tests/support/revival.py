"""A part of a stack that a test kills or stops, and starts again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from lorry.local.ledger import Entry
from lorry.local.part import RunningPart, start_part
from lorry.local.stack import Stack
from lorry.processes import process_start


class Revivable:
    """One part of the run's stack. What was started again runs until `stop`, for the tests that come after."""

    def __init__(self, stack: Stack, name: str, *, base_directory: Path = Path()) -> None:
        self._stack = stack
        self._name = name
        self._base_directory = base_directory
        self._revived: list[RunningPart] = []

    @property
    def process(self) -> psutil.Process:
        """The process that runs now."""
        return psutil.Process(next(pid for name, _, pid in self._stack.addresses() if name == self._name))

    @asynccontextmanager
    async def killed(self) -> AsyncIterator[None]:
        """Kill it with −9; start it again when the block ends."""
        process = self.process
        family = [process, *process.children(recursive=True)]
        for each in family:  # the one that answers first: nobody is to hear from it that another died
            with suppress(psutil.NoSuchProcess):  # as it may by then, since its parent has
                each.kill()
        await asyncio.to_thread(psutil.wait_procs, family, 60)
        async with self._revived_after():
            yield

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Ask it to stop and wait until it has; start it again when the block ends."""
        process = self.process
        family = [*process.children(recursive=True), process]
        process.terminate()
        _, stubborn = await asyncio.to_thread(psutil.wait_procs, family, 120)
        assert not stubborn, f"{self._name} did not stop"
        async with self._revived_after():
            yield

    @asynccontextmanager
    async def _revived_after(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            part = self._stack.plan.part(self._name, base_directory=self._base_directory)
            running = await start_part(part)
            self._revived.append(running)
            await running.wait_until_healthy()
            started = process_start(running.pid) or 0.0
            entry = Entry(name=part.name, pid=running.pid, started=started, address=part.address, ready=True)
            ledger = self._stack.ledger
            ledger.write([*(each for each in ledger.entries() if each.name != part.name), entry])

    async def stop(self) -> None:
        """Stop everything that was started again."""
        for running in self._revived:
            await running.stop()
