"""What this engine's requests lean on: which adapters they can name, which of them run, and how that is ended.

vLLM looks a known adapter up in a table and asks nobody, so a door has to stand behind that look-up: `Residents`
takes the place of ``AsyncLLM.generate`` on vLLM's instance, through which every request passes. There it asks the
gate, counts the request's lease, and can end it. The seam is watched by a contract test.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.lora.request import LoRARequest

from kit.errors import LorryError
from serving.engine.resolver import refusal

_log = logging.getLogger(__name__)
_DRAIN_SECONDS = 5.0
_POLL_SECONDS = 0.05

Gate = Callable[[str], None]
"""Lets a version pass, or raises the LorryError that refuses it."""


@dataclass(eq=False)
class _Lease:
    """One request that runs; `ended_by` is why it was ended before it was done."""

    request_id: str
    ended_by: LorryError | None = None


class Residents:
    """The adapters of one API server, and the requests that run on them."""

    def __init__(
        self,
        models: OpenAIServingModels,
        *,
        engine: EngineClient,
        gate: Gate,
        remove: Callable[[LoRARequest, LorryError], Awaitable[object]],
    ) -> None:
        """Look after vLLM's table.

        Args:
            models: holds the table of the adapters that requests can name.
            engine: runs the requests.
            gate: judges a version whenever it is used.
            remove: takes an adapter that no request can name any more out of the engine's memory, for a reason that
                those who still wait for it are told.
        """
        self._models = models
        self._engine = engine
        self._gate = gate
        self._remove = remove
        self._generate: Callable[..., AsyncGenerator[Any, None]] = engine.generate
        self._arriving: Counter[str] = Counter()
        self._running: dict[str, set[_Lease]] = {}
        self._numbers = itertools.count(1)

    def take_over(self) -> None:
        """Make every request of vLLM's handlers come by here."""
        self._engine.generate = self.generate

    def require(self, version_id: str) -> None:
        """Ask the gate, for vLLM.

        Raises:
            GracefulHTTPError: with the status and the reason of the gate's refusal.
        """
        try:
            self._gate(version_id)
        except LorryError as exc:
            raise refusal(exc) from exc

    @contextmanager
    def arriving(self, version_id: str) -> Iterator[None]:
        """Count a version as held while it is being loaded, so that it is judged before it can be named."""
        self._arriving[version_id] += 1
        try:
            yield
        finally:
            self._arriving[version_id] -= 1
            self._arriving += Counter()  # drops what fell to zero

    def named(self) -> frozenset[str]:
        """Return the versions that requests can name, or are waiting for."""
        return frozenset(self._models.lora_requests) | frozenset(self._arriving)

    def leases(self) -> dict[str, int]:
        """Return how many requests run on each version that has any."""
        return {version_id: len(leases) for version_id, leases in self._running.items()}

    def generate(
        self,
        prompt: Any,
        sampling_params: Any,
        request_id: str,
        *,
        lora_request: LoRARequest | None = None,
        **rest: Any,
    ) -> AsyncGenerator[Any, None]:
        """Stand in for vLLM's; refuses here already, where a streamed answer can still have a status.

        Raises:
            GracefulHTTPError: when the gate refuses the request's adapter.
        """
        if lora_request is None:
            return self._generate(prompt, sampling_params, request_id, **rest)
        self.require(lora_request.lora_name)
        own_id = f"{request_id}.{next(self._numbers)}"  # callers choose theirs: ending one must not end another's
        outputs = self._generate(prompt, sampling_params, own_id, lora_request=lora_request, **rest)
        return self._leased(outputs, version_id=lora_request.lora_name, lease=_Lease(own_id))

    async def withdraw(self, version_id: str, reason: LorryError) -> None:
        """Make a version unknown, end the requests that run on it, and take it out of the engine's memory.

        The gate has to refuse it already. Returns when no step of the engine can touch the version any more:
        its files may then be deleted.
        """
        request = self._models.lora_requests.pop(version_id, None)
        deadline = monotonic() + _DRAIN_SECONDS
        while self._running.get(version_id) and monotonic() < deadline:
            await self.end(version_id, reason)
            await asyncio.sleep(_POLL_SECONDS)  # who reads slowly holds on; the engine itself is done with it
        if request is not None:
            await self._remove(request, reason)
            _log.info("withdrew %s", version_id)

    async def end_all(self, reason: LorryError) -> None:
        """End every request that runs on an adapter; requests to the base model go on."""
        for version_id in list(self._running):
            await self.end(version_id, reason)

    async def end(self, version_id: str, reason: LorryError) -> None:
        """End every request that runs on a version."""
        leases = self._running.get(version_id, set())
        for lease in leases:
            lease.ended_by = reason
        await self._engine.abort([lease.request_id for lease in leases])

    async def _leased(
        self, outputs: AsyncGenerator[Any, None], *, version_id: str, lease: _Lease
    ) -> AsyncGenerator[Any, None]:
        self.require(version_id)
        leases = self._running.setdefault(version_id, set())
        leases.add(lease)
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    if lease.ended_by is not None:
                        raise refusal(lease.ended_by)
                    yield output
        finally:
            leases.discard(lease)
            if not leases and self._running.get(version_id) is leases:
                del self._running[version_id]
