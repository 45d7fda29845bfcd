"""The API server's side of the workers: stage, drop and erase adapters in all of them, and hear when it is done.

An order goes through the engine's loop, between two steps; that it was met comes back past it, by signal: nothing
polls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

from kit.errors import LorryError
from serving.engine.opened import OpenedFiles
from serving.engine.worker.signals import Signal, SignalReceiver
from serving.errors import AdapterDamaged, AdapterInUse, AdapterNotLoaded, AdapterUnfit, EngineMisconfigured

_log = logging.getLogger(__name__)
_REFUSALS: dict[str, type[LorryError]] = {cls.__name__: cls for cls in (AdapterDamaged, AdapterUnfit, AdapterNotLoaded)}
_REMOVAL_PAUSES_SECONDS = (0.01, 0.05, 0.25, 1.0)

Call: TypeAlias = Callable[..., Awaitable[list[Any]]]
"""vLLM's ``collective_rpc(method, args=…)``: one result a worker."""


@dataclass(frozen=True, kw_only=True)
class Staged:
    """An adapter that every worker holds in host memory.

    Attributes:
        size_bytes: host memory that it takes, in all workers together.
        seconds: by stage (queue, read, prepare), of the slowest worker; empty when it was there already.
    """

    size_bytes: int
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Activation:
    """One copy of an adapter into a slot of one worker; `seconds` is how long it kept the engine's thread."""

    version_id: str
    slot: int
    rank: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What a removal did, in all workers together."""

    freed_bytes: int
    slots_zeroed: int
    workers: int


@dataclass
class _Pending:
    ready: asyncio.Future[None]
    missing: set[int]
    size_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


class WorkerLink:
    """Talks to every worker of one engine."""

    def __init__(
        self,
        call: Call,
        *,
        stage_seconds: float = 120.0,
        on_activated: Callable[[Activation], None] = lambda activation: None,
        on_lost: Callable[[str], None] = lambda version_id: None,
    ) -> None:
        """Describe a link; `open` makes it.

        Args:
            call: vLLM's `collective_rpc`.
            stage_seconds: how long staging may take before it counts as failed.
            on_activated: told of each copy into a slot, by every worker.
            on_lost: told of an adapter that a step needed and no longer found; its requests must be aborted, and
                it must be loaded anew under another path, since cached blocks of it are wrong.
        """
        self._call = call
        self._stage_seconds = stage_seconds
        self._on_activated = on_activated
        self._on_lost = on_lost
        self._receiver = SignalReceiver(self._hear)
        self._ranks: list[int] = []
        self._calls = count(1)
        self._pending: dict[int, _Pending] = {}

    async def open(self, directory: Path) -> None:
        """Listen in `directory`, and connect every worker.

        Raises:
            EngineMisconfigured: when a worker runs without our parts, or the socket cannot be made.
        """
        try:
            address = await self._receiver.open(directory)
            replies = await self._call("lorry_connect", args=(address,))
        except Exception as exc:  # the engine core sends every failure as a bare Exception with a text
            self._receiver.close()
            raise EngineMisconfigured(f"The engine's workers cannot be reached: {exc}") from exc
        self._ranks = [reply["rank"] for reply in replies]

    def close(self) -> None:
        """Stop listening."""
        self._receiver.close()

    async def stage(self, version_id: str, *, number: int, files: OpenedFiles, urgent: bool = True) -> Staged:
        """Bring an adapter into every worker's host memory; takes no slot.

        Args:
            version_id: its name.
            number: vLLM's number for it.
            files: where they lie, opened and verified, until this returns or raises.
            urgent: whether it goes before those that are not.

        Raises:
            AdapterDamaged, AdapterUnfit, AdapterNotLoaded: the first worker's reason; others may hold it, or still come
                to hold it, until it is dropped.
        """
        call = next(self._calls)
        pending = _Pending(asyncio.get_running_loop().create_future(), set(self._ranks))
        self._pending[call] = pending
        try:
            arguments = (version_id, number, files.values(), urgent, call)
            states = await self._order("lorry_stage", arguments)
            if "staged" in states:  # it was there before
                hosts = await self.residents()
                for rank, state, host in zip(self._ranks, states, hosts, strict=True):
                    if state == "staged":
                        pending.size_bytes += host["host"].get(version_id, 0)
                        self._arrive(pending, rank)
            async with asyncio.timeout(self._stage_seconds):
                await pending.ready
        except TimeoutError as exc:
            raise AdapterNotLoaded("The engine's workers did not stage the adapter in time.") from exc
        finally:
            del self._pending[call]
        return Staged(size_bytes=pending.size_bytes, seconds=pending.seconds)

    async def drop(self, version_id: str) -> Removed:
        """Take an adapter out of every worker, whatever numbers it had there.

        Raises:
            AdapterInUse: when a running request uses it: its leases have not ended.
        """
        return await self._remove("lorry_drop", version_id)

    async def erase(self, version_id: str) -> Removed:
        """Take an adapter out of every worker, overwrite its weights in memory and slots, and check the slots.

        Raises:
            AdapterInUse: when a running request uses it.
            AdapterNotLoaded: when a slot still holds weights.
        """
        return await self._remove("lorry_erase", version_id)

    async def residents(self) -> list[dict[str, Any]]:
        """Return each worker's ``host`` (version_id → bytes) and ``slots`` (version_id or None).

        Raises:
            AdapterNotLoaded: when a worker fails, or the engine is gone.
        """
        return await self._order("lorry_residents", ())

    async def _order(self, method: str, arguments: tuple[Any, ...]) -> list[Any]:
        try:
            return await self._call(method, args=arguments)
        except Exception as exc:  # the engine core sends every failure as a bare Exception with a text
            doing = method.removeprefix("lorry_")
            raise AdapterNotLoaded(f"The engine's workers failed ({doing}): {exc}") from exc

    async def _remove(self, method: str, version_id: str) -> Removed:
        """Ask every worker; the engine may need one more step to let go of a request that ended just now."""
        for pause_seconds in (*_REMOVAL_PAUSES_SECONDS, None):
            replies = await self._order(method, (version_id,))
            if all(reply["removed"] for reply in replies):
                return Removed(
                    freed_bytes=sum(reply["freed_bytes"] for reply in replies),
                    slots_zeroed=sum(reply["slots_zeroed"] for reply in replies),
                    workers=len(replies),
                )
            if pause_seconds is not None:
                await asyncio.sleep(pause_seconds)
        raise AdapterInUse("The engine has not let go of a request that used the adapter, so it stays; ask again.")

    def _hear(self, signal: Signal) -> None:
        match signal.get("event"):
            case "activated":
                self._on_activated(
                    Activation(
                        version_id=signal["version_id"],
                        slot=signal["slot"],
                        rank=signal["rank"],
                        seconds=signal["seconds"],
                    )
                )
            case "lost":
                _log.error("%s was needed in a step and is not in host memory", signal["version_id"])
                self._on_lost(signal["version_id"])
            case "staged" | "refused" | "dropped" as event:
                for call in signal["calls"]:
                    if (pending := self._pending.get(call)) is not None:
                        self._conclude(pending, event, signal)
            case other:
                _log.warning("dropped an unknown signal: %s", other)

    def _conclude(self, pending: _Pending, event: str, signal: Signal) -> None:
        if event == "staged":
            pending.size_bytes += signal["size_bytes"]
            for stage, seconds in signal["seconds"].items():
                pending.seconds[stage] = max(seconds, pending.seconds.get(stage, 0.0))
            self._arrive(pending, signal["rank"])
        elif not pending.ready.done():
            if event == "dropped":
                error: LorryError = AdapterNotLoaded("The adapter was removed while it was being staged.")
            else:
                error = _REFUSALS.get(signal["kind"], AdapterNotLoaded)(signal["message"], field=signal["field"])
            pending.ready.set_exception(error)

    def _arrive(self, pending: _Pending, rank: int) -> None:
        pending.missing.discard(rank)
        if not pending.missing and not pending.ready.done():
            pending.ready.set_result(None)
