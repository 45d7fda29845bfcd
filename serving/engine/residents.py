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
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.lora.request import LoRARequest

from kit.errors import LorryError
from serving.engine.pool.erasure import Erasure
from serving.engine.pool.observer import Reason
from serving.engine.resolver import refusal

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.05

Gate = Callable[[str], None]
"""Lets a version pass, or raises the LorryError that refuses it."""


class Memory(Protocol):
    """What takes a version out of the engine's memory: the pool."""

    async def withdraw(
        self, version_id: str, reason: LorryError, *, wait_seconds: float | None = None, because: Reason = "withheld"
    ) -> Erasure:
        """Take a version out and overwrite it, once no request runs on it; those that come meanwhile hear `reason`."""

    async def retire(self, version_id: str) -> bool:
        """Take a version out of host memory unless it is in use."""

    def held(self) -> frozenset[str]:
        """Return every version of which host memory or a slot's tensors hold weights."""


class Counted(Protocol):
    """What is told of requests that do not get what they asked for."""

    def refused(self, error: BaseException) -> None:
        """Count a request that did not start."""

    def ended(self, error: BaseException, count: int) -> None:
        """Count requests that were ended while they ran."""


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
        counted: Counted,
    ) -> None:
        """Look after vLLM's table.

        Args:
            models: holds the table of the adapters that requests can name.
            engine: runs the requests.
            gate: judges a version whenever it is used.
            counted: hears of requests that are refused or ended here.
        """
        self._models = models
        self._engine = engine
        self._gate = gate
        self._counted = counted
        self._memory: Memory | None = None
        self._generate: Callable[..., AsyncGenerator[Any, None]] = engine.generate
        self._arriving: Counter[str] = Counter()
        self._running: dict[str, set[_Lease]] = {}
        self._ending: dict[str, list[LorryError]] = {}
        self._numbers = itertools.count(1)

    def take_over(self, memory: Memory) -> None:
        """Make every request of vLLM's handlers come by here; `memory` is where adapters are taken out of."""
        self._memory = memory
        self._engine.generate = self.generate

    def require(self, version_id: str) -> None:
        """Ask the gate, for vLLM; while what runs on a version is being ended, nothing more begins on it.

        Raises:
            GracefulHTTPError: with the status and the reason of the refusal.
        """
        try:
            self._gate(version_id)
            if reasons := self._ending.get(version_id):
                raise copy(reasons[0])
        except LorryError as exc:
            self._counted.refused(exc)
            raise refusal(exc) from exc

    @contextmanager
    def arriving(self, version_id: str) -> Iterator[None]:
        """Count a version as held while it is being loaded or dropped, so that it is judged before it can be named."""
        self._arriving[version_id] += 1
        try:
            yield
        finally:
            self._arriving[version_id] -= 1
            self._arriving += Counter()  # drops what fell to zero

    def named(self) -> frozenset[str]:
        """Return the versions that requests can name or wait for, and those whose weights are in memory for no one."""
        left = frozenset() if self._memory is None else self._memory.held()
        return left | frozenset(self._models.lora_requests) | frozenset(self._arriving)

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

    async def withdraw(
        self,
        version_id: str,
        reason: LorryError,
        *,
        abort: bool = True,
        wait_seconds: float | None = None,
        because: Reason = "withheld",
    ) -> Erasure | None:
        """Take a version out of the engine's memory, overwriting it, and return what that did.

        Returns when no step of the engine can touch the version any more: its files may then be deleted. None = the
        engine has no memory of adapters yet.

        Args:
            version_id: what has to go.
            reason: what those hear who run on it, wait for it, or ask for it meanwhile.
            abort: end the requests that run on it; else they finish first.
            wait_seconds: how long that may take; None = as long as it does.
            because: what it is counted under.

        Raises:
            AdapterInUse: when requests run on it after `wait_seconds`; it stays then, and can be asked for again.
            AdapterNotLoaded: when a slot still holds weights.
        """
        if self._memory is None:
            return None
        async with self._ended(version_id, reason) if abort else nullcontext():
            return await self._memory.withdraw(version_id, reason, wait_seconds=wait_seconds, because=because)

    async def retire(self, version_id: str) -> bool:
        """Take a version out of host memory, because a newer one took its place; not while requests run on it."""
        return self._memory is not None and await self._memory.retire(version_id)

    async def end_all(self, reason: LorryError) -> None:
        """End every request that runs on an adapter; requests to the base model go on."""
        for version_id in list(self._running):
            await self.end(version_id, reason)

    async def end(self, version_id: str, reason: LorryError) -> None:
        """End every request that runs on a version."""
        self._mark(version_id, reason)
        await self._engine.abort([lease.request_id for lease in self._running.get(version_id, set())])

    def _mark(self, version_id: str, reason: LorryError) -> None:
        """Let no more outputs of a version's requests reach anybody."""
        news = [lease for lease in self._running.get(version_id, set()) if lease.ended_by is None]
        for lease in news:
            lease.ended_by = reason
        if news:
            self._counted.ended(reason, len(news))
            _log.info("ended %d requests on %s: %s", len(news), version_id, reason.message)

    @asynccontextmanager
    async def _ended(self, version_id: str, reason: LorryError) -> AsyncIterator[None]:
        """Let nobody hear of a version from now on, and end its requests, until the block ends."""
        self._mark(version_id, reason)
        reasons = self._ending.setdefault(version_id, [])
        reasons.append(reason)
        ending = asyncio.create_task(self._keep_ending(version_id, reason))
        try:
            yield
        finally:
            reasons.remove(reason)
            if not reasons:
                del self._ending[version_id]
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    async def _keep_ending(self, version_id: str, reason: LorryError) -> None:
        """End requests, those as well that were handed to the engine just before.

        The version's name is left where it is: it goes with the weights, or stays with them.
        """
        while True:
            await self.end(version_id, reason)
            await asyncio.sleep(_POLL_SECONDS)

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
