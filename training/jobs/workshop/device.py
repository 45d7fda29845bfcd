"""A worker's device, and the base model that lies on it: loaded once, for everybody who is trained for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.base_models import prepare_base
from training.errors import AdapterUnreadable, OutOfMemory
from training.jobs.settings import WorkerSettings

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
    """The resident trainer and evaluator of one base at a time; one job uses them at a time."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._turn = asyncio.Lock()
        self._loaded: _Loaded | None = None

    async def base_directory(self, base: str) -> Path:
        """Return where the base model is, after unpacking it when this machine does not have it yet."""
        return await asyncio.to_thread(prepare_base, base, self._settings.bases_directory / Path(base).name)

    @asynccontextmanager
    async def trainer(self, base: str) -> AsyncIterator[Trainer]:
        """Hold the trainer of this base; another base takes the place of the one before."""
        from training.trainer import Trainer

        async with self._turn:
            loaded = await self._of(base)
            if loaded.trainer is None:
                loaded.trainer = await asyncio.to_thread(
                    Trainer, loaded.directory, device=self._settings.training_device
                )
            try:
                yield loaded.trainer
            except _UNSETTLING:
                loaded.trainer = None
                raise

    @asynccontextmanager
    async def evaluator(self, base: str) -> AsyncIterator[Evaluator]:
        """Hold the evaluator of this base, which has the base as it is served."""
        from training.evaluation import Evaluator

        async with self._turn:
            loaded = await self._of(base)
            if loaded.evaluator is None:
                loaded.evaluator = await asyncio.to_thread(
                    Evaluator, loaded.directory, device=self._settings.training_device
                )
            try:
                yield loaded.evaluator
            except _UNSETTLING:
                loaded.evaluator = None
                raise

    async def _of(self, base: str) -> _Loaded:
        directory = await self.base_directory(base)
        if self._loaded is None or self._loaded.base != base:
            self._loaded = None  # before the other one is read: both need not fit at once
            self._loaded = _Loaded(base=base, directory=directory)
        return self._loaded
