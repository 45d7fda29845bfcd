"""A worker's device, and the base model that lies on it: loaded once, for everybody who is trained for it.

Loading takes minutes for a large base, and nothing in it can be broken off. A job that must stop lets go of it within a
moment: the load goes on in a thread of its own, which no process waits for when it ends, and whoever comes next has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.base_models import prepare_base
from training.errors import AdapterUnreadable, OutOfMemory
from training.jobs.settings import WorkerSettings
from training.jobs.workshop.letting_go import Check, end_of, in_thread, unless_stopped

if TYPE_CHECKING:
    from training.evaluation import Evaluator
    from training.trainer import Trainer

# What may have ended while an adapter was half on the base: whoever comes next gets one that was loaded anew.
_UNSETTLING = (OutOfMemory, AdapterUnreadable, MemoryError, RuntimeError)


@dataclass(kw_only=True)
class _Loaded:
    base: str
    directory: Path
    trainer: Trainer | None = None
    evaluator: Evaluator | None = None


class Device:
    """The resident trainer and evaluator of one base at a time; one job uses them at a time.

    Every method that may take long is given the job's `check`, and raises what that raises.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._turn = asyncio.Lock()
        self._loaded: _Loaded | None = None
        self._loading: asyncio.Future[None] | None = None

    async def base_directory(self, base: str, *, check: Check) -> Path:
        """Return where the base model is, after unpacking it when this machine does not have it yet."""
        place = self._settings.bases_directory / Path(base).name
        return await unless_stopped(in_thread(lambda: prepare_base(base, place)), check)

    @asynccontextmanager
    async def trainer(self, base: str, *, check: Check) -> AsyncIterator[Trainer]:
        """Hold the trainer of this base; another base takes the place of the one before."""
        async with self._turn:
            loaded = await self._of(base, check)
            if loaded.trainer is None:

                def load() -> None:
                    from training.trainer import Trainer  # here: it takes seconds, and the worker must show life

                    loaded.trainer = Trainer(loaded.directory, device=self._settings.training_device)

                await self._load(load, check)
            assert loaded.trainer is not None
            try:
                yield loaded.trainer
            except _UNSETTLING:
                loaded.trainer = None
                raise

    @asynccontextmanager
    async def evaluator(self, base: str, *, check: Check) -> AsyncIterator[Evaluator]:
        """Hold the evaluator of this base, which has the base as it is served."""
        async with self._turn:
            loaded = await self._of(base, check)
            if loaded.evaluator is None:

                def load() -> None:
                    from training.evaluation import Evaluator

                    loaded.evaluator = Evaluator(loaded.directory, device=self._settings.training_device)

                await self._load(load, check)
            assert loaded.evaluator is not None
            try:
                yield loaded.evaluator
            except _UNSETTLING:
                loaded.evaluator = None
                raise

    async def _of(self, base: str, check: Check) -> _Loaded:
        directory = await self.base_directory(base, check=check)
        if self._loading is not None:  # by a job that was stopped: two bases need not fit at once
            await unless_stopped(end_of(self._loading), check)
            self._loading = None
        if self._loaded is None or self._loaded.base != base:
            self._loaded = None  # before the other one is read
            self._loaded = _Loaded(base=base, directory=directory)
        return self._loaded

    async def _load(self, load: Callable[[], None], check: Check) -> None:
        self._loading = in_thread(load)
        await unless_stopped(self._loading, check)
        self._loading = None
