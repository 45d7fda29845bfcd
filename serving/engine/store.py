"""Where the pool's adapters come from and go to: the registry, this host's disk, the workers, vLLM's table of names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.lora.request import LoRARequest

from kit.errors import LorryError
from serving.engine.cache_paths import CachePaths
from serving.engine.metrics import EngineMetrics
from serving.engine.opened import OpenedAdapter
from serving.engine.pool.erasure import Removal
from serving.engine.removals import Removals
from serving.engine.source import AdapterSource, Offer
from serving.engine.turns import Turns
from serving.engine.urgency import Urgency
from serving.engine.worker.link import Removed, WorkerLink

_log = logging.getLogger(__name__)
_REMEMBERED_SIZES = 4096
_STAGED_AT_ONCE = 4
"""The workers prepare one adapter at a time, and keep the order in which these came; who waits here can still hurry."""

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
            arriving: counts a version as held while it is on its way, in or out.
            metrics: seconds by stage, and how loads end.
        """
        self._source = source
        self._link = link
        self._models = models
        self._gate = gate
        self._arriving = arriving
        self._metrics = metrics
        self._opening: dict[str, asyncio.Task[OpenedAdapter]] = {}
        self._ending: dict[str, set[asyncio.Task[OpenedAdapter]]] = {}  # abandoned, and not at its end yet
        self._removals = Removals(held=arriving)
        self._paths = CachePaths()
        self._sizes: dict[str, int] = {}
        self._staging = Turns(_STAGED_AT_ONCE)

    def at_hand(self, version_id: str) -> bool:
        """Say whether the version is refused without a question, or lies on the disk with its key known."""
        try:
            self._gate(version_id)
        except LorryError:
            return True
        return self._source.at_hand(version_id)

    async def install(self, version_id: str, *, urgent: Urgency) -> int:
        """See that the version can be had, and begin to fetch and open it.

        Returns what it took in memory last time, or else the size of its weights' file. The opening goes on while the
        caller makes room for it; `stage` or `abandon` must follow.

        Raises:
            LorryError: the gate's refusal, or why it cannot be had.
        """
        self._gate(version_id)
        self.abandon(version_id)
        with self._arriving(version_id):
            offer = await self._source.find(version_id)
        self._opening[version_id] = asyncio.create_task(self._open(offer, urgent=urgent))
        return self._sizes.get(version_id, offer.weights_bytes)

    async def stage(self, version_id: str, *, urgent: Urgency) -> int:
        """Bring an installed version into every worker's host memory, and let requests name it.

        Returns the bytes that it takes there: weights may be kept in more or fewer than they have in the file.

        Raises:
            LorryError: the gate's refusal, or why it cannot be had or loaded.
        """
        with self._arriving(version_id), await self._opened(version_id) as opened:
            await self._removals.ended(version_id)
            self._gate(version_id)
            number = self._models.lora_id_counter.inc(1)
            try:
                with self._metrics.stage("engine_load"):
                    async with self._staging.turn(urgent=urgent):
                        staged = await self._link.stage(
                            version_id, number=number, files=opened.files, urgent=bool(urgent)
                        )
                self._metrics.worker_stages(staged.seconds)
            except BaseException as exc:
                self.drop(version_id)  # some workers may hold it, or go on reading
                if isinstance(exc, LorryError):
                    self._source.reject(version_id, exc)
                raise
            try:
                self._gate(version_id)
            except LorryError:
                await self.drop(version_id)
                raise
            self._models.lora_requests[version_id] = LoRARequest(
                lora_name=version_id, lora_int_id=number, lora_path=self._path(version_id)
            )
        self._metrics.loaded()
        _log.info("loaded %s", version_id)
        self._sizes[version_id] = staged.size_bytes
        while len(self._sizes) > _REMEMBERED_SIZES:
            del self._sizes[next(iter(self._sizes))]
        return staged.size_bytes

    def abandon(self, version_id: str) -> None:
        """Let go of what `install` began, when no `stage` will follow."""
        if (opening := self._opening.pop(version_id, None)) is not None:
            self._ending.setdefault(version_id, set()).add(opening)
            opening.add_done_callback(lambda opening: self._ended(version_id, opening))
            opening.cancel()

    def drop(self, version_id: str) -> Awaitable[bool]:
        """Take a version out of vLLM's table now, and of the workers; False = they keep it, which is logged."""
        self._models.lora_requests.pop(version_id, None)
        return self._removals.begin(version_id, lambda: self._drop(version_id))

    async def erase(self, version_id: str) -> Removal:
        """Take a version out of vLLM's table and the workers, overwriting it there; its files are the caller's.

        Whoever loads it again names it by another path, so that the prefix cache's blocks of it stay unreachable.

        Raises:
            AdapterInUse, AdapterNotLoaded: when a request still uses it, or a slot still holds weights; ask again.
        """
        named = self._models.lora_requests.pop(version_id, None) is not None
        self.lost(version_id)
        self._sizes.pop(version_id, None)
        removed = await self._removals.begin(version_id, lambda: self._erase(version_id))
        _log.info("erased %s from memory and %d slots", version_id, removed.slots_zeroed)
        return Removal(
            named=named, host_bytes=removed.freed_bytes, slots_zeroed=removed.slots_zeroed, workers=removed.workers
        )

    def lost(self, version_id: str) -> None:
        """See to it that the version's blocks in the prefix cache are never used again."""
        self._paths.renew(version_id)

    async def _opened(self, version_id: str) -> OpenedAdapter:
        """Wait for what `install` began; who is cancelled does not wait until that has ended as well."""
        try:
            opened = await asyncio.shield(self._opening[version_id])
        except BaseException:
            self.abandon(version_id)
            raise
        del self._opening[version_id]
        return opened

    def _ended(self, version_id: str, opening: asyncio.Task[OpenedAdapter]) -> None:
        self._ending[version_id].discard(opening)
        if not self._ending[version_id]:
            del self._ending[version_id]
        if not opening.cancelled() and opening.exception() is None:  # else it was counted where it happened
            opening.result().close()

    async def _erase(self, version_id: str) -> Removed:
        """Erase a version in the workers, and see what was being opened of it out of this process's memory."""
        removed = await self._link.erase(version_id)
        if ending := self._ending.get(version_id):
            await asyncio.wait(set(ending))
        return removed

    async def _drop(self, version_id: str) -> bool:
        try:
            await self._link.drop(version_id)
        except LorryError as exc:
            _log.error("%s stays in the workers for now: %s", version_id, exc.message)
            return False
        return True

    async def _open(self, offer: Offer, *, urgent: Urgency) -> OpenedAdapter:
        with self._arriving(offer.version_id):
            return await self._source.open(offer, urgent=urgent)

    def _path(self, version_id: str) -> str:
        """Name the version's files for vLLM, which never reads them but keys its prefix cache by the name."""
        return self._paths.of(version_id, str(self._source.directory_of(version_id)))
