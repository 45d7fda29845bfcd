"""Where the pool's adapters come from and go to: the registry, this host's disk, the workers, vLLM's table of names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.lora.request import LoRARequest

from kit.errors import LorryError
from serving.engine.metrics import EngineMetrics
from serving.engine.source import AdapterSource, Installed
from serving.engine.worker.link import WorkerLink

_log = logging.getLogger(__name__)

Gate = Callable[[str], None]
"""Lets a version pass, or raises the LorryError that refuses it."""


class EngineStore:
    """The pool's `Store` in a real engine."""

    def __init__(
        self,
        source: AdapterSource,
        *,
        link: WorkerLink,
        models: OpenAIServingModels,
        gate: Gate,
        arriving: Callable[[str], AbstractContextManager[None]],
        metrics: EngineMetrics,
    ) -> None:
        """Connect the parts.

        Args:
            source: installs versions.
            link: stages them in the workers.
            models: vLLM's table of the adapters that requests can name, and its numbers for them.
            gate: judges a version before it is fetched, and again before it can be named.
            arriving: counts a version as held while it is on its way.
            metrics: seconds by stage, and how loads end.
        """
        self._source = source
        self._link = link
        self._models = models
        self._gate = gate
        self._arriving = arriving
        self._metrics = metrics
        self._installed: dict[str, Installed] = {}
        self._numbers: dict[str, int] = {}
        self._losses: dict[str, int] = {}

    async def install(self, version_id: str) -> int:
        """Put the version's verified files on this host's disk; returns the size of its weights.

        Raises:
            LorryError: the gate's refusal, or why it cannot be had.
        """
        self._gate(version_id)
        with self._arriving(version_id):
            installed = self._installed[version_id] = await self._source.install(version_id)
        return installed.weights_bytes

    async def stage(self, version_id: str, *, urgent: bool) -> None:
        """Bring an installed version into every worker's host memory, and let requests name it.

        Raises:
            LorryError: the gate's refusal, or why it cannot be loaded.
        """
        installed = self._installed.pop(version_id)
        number = self._models.lora_id_counter.inc(1)
        with self._arriving(version_id):
            try:
                with self._metrics.stage("engine_load"):
                    await self._link.stage(
                        version_id,
                        number=number,
                        directory=installed.directory,
                        digests=installed.digests,
                        urgent=urgent,
                    )
            except LorryError as exc:
                self._source.reject(version_id, exc)
                raise
            self._numbers[version_id] = number
            try:
                self._gate(version_id)
            except LorryError:
                await self.drop(version_id)
                raise
            self._models.lora_requests[version_id] = LoRARequest(
                lora_name=version_id, lora_int_id=number, lora_path=self._path(version_id, installed)
            )
        self._metrics.loaded()
        _log.info("loaded %s", version_id)

    async def drop(self, version_id: str) -> None:
        """Take a version out of vLLM's table and the workers; what goes wrong is logged."""
        self._models.lora_requests.pop(version_id, None)
        number = self._numbers.pop(version_id, None)
        if number is None:
            return
        try:
            await self._link.drop(version_id, number=number)
        except Exception:  # the engine core sends every failure as a bare Exception; it dies of those that matter
            _log.exception("could not take %s out of the workers", version_id)

    async def erase(self, version_id: str) -> None:
        """Take a version out of vLLM's table and the workers, overwriting it there; its files are the caller's.

        Raises:
            AdapterNotLoaded: when a request still uses it, or a slot still holds weights.
        """
        self._models.lora_requests.pop(version_id, None)
        self._losses.pop(version_id, None)
        number = self._numbers.pop(version_id, 0)
        removal = await self._link.erase(version_id, number=number)
        _log.info("erased %s from memory and %d slots", version_id, removal.slots_zeroed)

    def lost(self, version_id: str) -> None:
        """Note that a step answered without the version's weights: its cached blocks must not be used again."""
        self._losses[version_id] = self._losses.get(version_id, 0) + 1

    def _path(self, version_id: str, installed: Installed) -> str:
        """Name the version's files for vLLM, which never reads them but keys its prefix cache by the name."""
        losses = self._losses.get(version_id, 0)
        return f"{installed.directory}#{losses}" if losses else str(installed.directory)
