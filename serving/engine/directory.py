"""This engine's place in the registry's directory: it says what it holds, and obeys what it hears.

Laws: a version that the registry's last answer withheld is refused; an engine whose last answer is older than its
lease refuses every adapter (it *fails closed*), and so does one that has had none; what is erased is off the disk
before the first adapter is served. The lease counts from when the question was asked, by a clock that goes on while
the machine sleeps and that nobody can set. The base model is served whatever happens here.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Collection
from typing import Protocol

from kit.background import Errands, attempt
from kit.errors import LorryError
from registry.client import RegistryClient
from registry.client.engines import Farewell, Heartbeat, Holdings, Orders, Presence, Registration, Tier, Withheld
from registry.errors import EngineNotFound, EngineSuperseded, NotServable, RegistryUnavailable, VersionNotFound
from registry.manifest import BaseIdentity
from serving.engine.eraser import Eraser
from serving.engine.installer import Installer
from serving.engine.metrics import EngineMetrics
from serving.engine.pool.erasure import Erasure
from serving.engine.pool.observer import Reason
from serving.engine.proof import engine_proof
from serving.engine.settings import EngineSettings
from serving.engine.single_flight import SingleFlight
from serving.errors import EngineOutOfTouch, EngineReplaced

NAME = "engine"
"""What the engine's work in the background is counted as."""
_log = logging.getLogger(__name__)
_CALL_SECONDS = 3.0
_MOST_REPORT_SECONDS = 30.0  # a call with all that a full disk holds: the registry stores and judges every version
_REPORTED_PER_SECOND = 500
_SLOTS_SECONDS = 10.0  # slots change hands all the time; each change would report everything that is held
_LEAVE_SECONDS = 2.0
_REASONS = {
    "suspended": "is suspended",
    "erased": "was erased",
    "removed": "was retired, and its files are gone",
    "unfinished": "was never made ready",
}


class Residents(Protocol):
    """What the directory needs to know of, and do to, the adapters in memory."""

    def named(self) -> Collection[str]:
        """Return the versions that requests can name, or are waiting for."""

    def leases(self) -> dict[str, int]:
        """Return how many requests run on each version."""

    async def withdraw(
        self,
        version_id: str,
        reason: LorryError,
        *,
        abort: bool = True,
        wait_seconds: float | None = None,
        because: Reason = "withheld",
    ) -> Erasure | None:
        """Take a version out of memory, overwriting it; its files may be deleted after that."""

    async def retire(self, version_id: str) -> bool:
        """Take a version out of memory unless it is in use; its files stay."""

    async def end_all(self, reason: LorryError) -> None:
        """End every request that runs on an adapter."""


def waking_time() -> float:
    """Return seconds on a clock that nobody sets and that counts the machine's sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Directory:
    """The gate in front of every adapter, kept by heartbeats."""

    def __init__(
        self,
        registry: RegistryClient,
        *,
        settings: EngineSettings,
        base: BaseIdentity,
        installer: Installer,
        metrics: EngineMetrics,
        clock: Callable[[], float] = waking_time,
    ) -> None:
        """Hear nothing yet: every adapter is refused until `run` has had an answer."""
        self._engines = registry.engines
        self._settings = settings
        self._base = base
        self._installer = installer
        self._metrics = metrics
        self.eraser = Eraser(installer, ledger=metrics.ledger)
        self._clock = clock
        self._incarnation = secrets.token_hex(16)
        self._proof: str | None = None
        self._residents: Residents | None = None
        self._withheld: dict[str, str] = {}
        self._deadline: float | None = None
        self._is_registered = self._is_replaced = False
        self._was_open: bool | None = None
        self._was_answered = True
        self._reported: str | None = None
        self._described: tuple[dict[str, Tier], Holdings, str] = ({}, Holdings(), Holdings().digest)
        self._look_into_slots: Callable[[], Collection[str]] = tuple
        self._on_retired: Callable[[str], None] = lambda version_id: None
        self._in_slots: frozenset[str] = frozenset()
        self._slots_read_at: float | None = None
        self._withdrawals: SingleFlight[str, None] = SingleFlight()
        self._removed_since: set[tuple[str, bool]] = set()  # what was held was last read; True = its files as well
        self._errands = Errands(of=NAME)

    @property
    def presence(self) -> Presence:
        """Which start of which engine this is; the incarnation in it is a secret."""
        return Presence(engine_id=self._settings.directory_id, incarnation=self._incarnation)

    def connect(
        self,
        residents: Residents,
        *,
        in_slots: Callable[[], Collection[str]] = tuple,
        on_retired: Callable[[str], None] = lambda version_id: None,
    ) -> None:
        """Say what is in memory, which of it is in device slots, and who hears of versions that a newer one replaced.

        `residents` are also told what must leave.
        """
        self._residents, self._look_into_slots, self._on_retired = residents, in_slots, on_retired
        self.eraser.connect(residents)

    def require(self, version_id: str) -> None:
        """Let a version pass that this engine may serve now.

        Raises:
            EngineOutOfTouch, EngineReplaced: no adapter is served here now.
            NotServable, VersionNotFound: the registry withholds this one.
        """
        if (closed := self.closed_because()) is not None:
            raise closed
        if (reason := self._withheld.get(version_id)) is not None:
            raise _refusal(version_id, reason)

    def closed_because(self) -> LorryError | None:
        """Return why no adapter is served now, or None."""
        if self._is_replaced:
            return EngineReplaced()
        if self._deadline is None:
            return EngineOutOfTouch("The engine has not heard from the registry yet, so it serves no adapter.")
        if self._clock() >= self._deadline:
            return EngineOutOfTouch()
        return None

    async def run(self) -> None:
        """Keep in touch until cancelled; nothing that goes wrong here ends it."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._keep_in_touch())
            both.create_task(self._end_with_the_lease())

    async def _keep_in_touch(self) -> None:
        while True:
            began = self._clock()
            # Whatever goes wrong, a heartbeat must follow: the engine fails closed by the clock, not by this loop.
            await attempt(self.beat, of=NAME, doing="a heartbeat")
            await asyncio.sleep(max(0.0, began + self._settings.heartbeat_seconds - self._clock()))

    async def _end_with_the_lease(self) -> None:
        """End what runs at the moment the lease is over, however long a heartbeat waits for its answer then."""
        while True:
            await attempt(self._end_if_closed, of=NAME, doing="ending what runs")
            left_seconds = 0.0 if self._deadline is None else self._deadline - self._clock()
            pause_seconds = self._settings.heartbeat_seconds
            await asyncio.sleep(min(left_seconds, pause_seconds) if left_seconds > 0 else pause_seconds)

    async def _end_if_closed(self) -> None:
        if (closed := self.closed_because()) is not None and self._residents is not None:
            await self._residents.end_all(closed)

    async def beat(self) -> None:
        """Say once what is held, and obey the answer; without an answer, see whether the lease is over."""
        began = time.perf_counter()
        try:
            await self._exchange()
        except LorryError as exc:
            self._metrics.heartbeat("failed", time.perf_counter() - began)
            self._is_replaced = self._is_replaced or isinstance(exc, EngineSuperseded)
            self._note(exc)
        else:
            self._metrics.heartbeat("answered", time.perf_counter() - began)
            self._note(None)
        await self._end_if_closed()

    async def leave(self) -> None:
        """Say that this engine stops; a registry that does not answer will see it lapse."""
        self._errands.cancel()
        self._deadline = None
        if self._is_registered:
            try:
                await self._engines.leave(
                    self._settings.directory_id,
                    Farewell(incarnation=self._incarnation),
                    timeout_seconds=_LEAVE_SECONDS,
                )
            except LorryError as exc:
                _log.warning("could not leave the directory: %s", exc.message)

    async def _exchange(self) -> None:
        self._removed_since.clear()
        held = await self._held()
        asked_at = self._clock()
        try:
            async with asyncio.timeout(2 * _report_seconds(held)):  # in all, whatever trickles in meanwhile
                orders = await self._ask_or_enter(held)
        except TimeoutError as exc:
            raise RegistryUnavailable("The registry's answer to a heartbeat did not end.") from exc
        await self._obey(orders, held)
        if orders.report:  # it does not know what we hold, or could not name all that must go
            self._reported = None
            return
        lease_seconds = min(orders.lease_seconds, self._settings.engine_lease_seconds)
        self._deadline, self._is_replaced = asked_at + lease_seconds, False

    async def _ask_or_enter(self, held: dict[str, Tier]) -> Orders:
        try:
            return await self._ask(held)
        except EngineNotFound:  # forgotten, or the registry was restored from a backup: enter anew, now
            self._is_registered = False
            return await self._ask(held)

    async def _held(self) -> dict[str, Tier]:
        on_disk = dict.fromkeys(await asyncio.to_thread(self._installer.installed), Tier.DISK)
        on_disk |= dict.fromkeys((entry.version_id for entry in self._installer.usage()), Tier.DISK)  # keys are known
        if self._residents is None:
            return on_disk
        named, now = frozenset(self._residents.named()), self._clock()
        if self._slots_read_at is None or now >= self._slots_read_at + _SLOTS_SECONDS:
            self._in_slots, self._slots_read_at = frozenset(self._look_into_slots()), now
        return on_disk | dict.fromkeys(named, Tier.HOST) | dict.fromkeys(named & self._in_slots, Tier.DEVICE)

    async def _describe(self, held: dict[str, Tier]) -> tuple[Holdings, str]:
        """Return what is held as the registry wants it, with its digest; made in a thread, and once."""
        if held != self._described[0]:
            self._described = (held, *await asyncio.to_thread(_describe, held))
        return self._described[1:]

    async def _ask(self, held: dict[str, Tier]) -> Orders:
        holdings, digest = await self._describe(held)
        if not self._is_registered:
            registration = Registration(
                incarnation=self._incarnation,
                proof=await self._prove(),
                base=self._base,
                address=self._settings.directory_address,
                facts=self._settings.facts(),
                holdings=holdings,
            )
            orders = await self._engines.register(
                self._settings.directory_id, registration, timeout_seconds=_report_seconds(held)
            )
            self._is_registered = True
        else:
            heartbeat = Heartbeat(
                incarnation=self._incarnation,
                holdings_digest=digest,
                holdings=None if digest == self._reported else holdings,
                leases={} if self._residents is None else self._residents.leases(),
            )
            orders = await self._engines.heartbeat(
                self._settings.directory_id,
                heartbeat,
                timeout_seconds=_CALL_SECONDS if heartbeat.holdings is None else _report_seconds(held),
            )
        self._reported = digest
        return orders

    async def _prove(self) -> str:
        if self._proof is None:
            directory, engine_id = self._settings.adapter_cache_directory, self._settings.directory_id
            self._proof = await asyncio.to_thread(engine_proof, directory, engine_id=engine_id)
        return self._proof

    async def _obey(self, orders: Orders, held: dict[str, Tier]) -> None:
        """Close the gate to what is withheld at once; empty memory and disk behind it.

        That is waited for only before the first adapter is served: later, an engine that is stuck in a step must not
        keep the next heartbeat from closing the gate to something else.
        """
        named = {each.version_id: each.reason for each in orders.withheld}
        self._withheld = self._withheld | named if orders.report else named  # a list that may lack some lifts nothing
        is_first = self._deadline is None  # nothing is in memory yet
        tasks = [
            self._errands.start(self._withdraw(each, in_memory=not is_first), doing=f"removing {each.version_id}")
            for each in orders.withheld
            if each.delete or held.get(each.version_id, Tier.DISK) is not Tier.DISK
            if is_first or each.version_id not in self._withdrawals  # else they would gather behind one that is stuck
            if (each.version_id, each.delete) not in self._removed_since  # else the report told of what is gone by now
        ]
        tasks += [self._errands.start(self._retire(each), doing=f"retiring {each}") for each in orders.superseded]
        if is_first and tasks:
            await asyncio.wait(tasks)

    async def _withdraw(self, order: Withheld, *, in_memory: bool) -> None:
        """Take a version out; what is left of it after a failure is found by the next heartbeat."""
        await self._withdrawals.run(order.version_id, lambda: self._remove(order, in_memory=in_memory))

    async def _remove(self, order: Withheld, *, in_memory: bool) -> None:
        await self.eraser.take_out(
            order.version_id,
            _refusal(order.version_id, order.reason),
            because="erased" if order.delete else "withheld",
            ordered_by="registry",
            files=order.delete,
            memory=in_memory,
        )
        self._removed_since.add((order.version_id, order.delete))

    async def _retire(self, version_id: str) -> None:
        """Take a version out of memory whose place a newer one took; the next heartbeat names it again if need be."""
        if self._residents is not None and await self._residents.retire(version_id):
            self._on_retired(version_id)
            _log.info("retired %s: a newer version took its place", version_id)

    def _note(self, failure: LorryError | None) -> None:
        """Log when answers cease, and when adapters begin or cease to be served; not every heartbeat."""
        if failure is not None and self._was_answered:
            _log.warning("the registry did not take a heartbeat: %s", failure.message)
        self._was_answered = failure is None
        is_open = self.closed_because() is None
        self._metrics.in_touch(is_open)
        if is_open != self._was_open:
            if is_open:
                _log.info("in touch with the registry: adapters are served")
            else:
                _log.error("adapters are refused: %s", failure.message if failure else "the lease is over")
        self._was_open = is_open


def _report_seconds(held: dict[str, Tier]) -> float:
    """Return how long the registry may take over a report: few versions are no reason to notice late that it hangs."""
    return min(_MOST_REPORT_SECONDS, 2 * _CALL_SECONDS + len(held) / _REPORTED_PER_SECOND)


def _describe(held: dict[str, Tier]) -> tuple[Holdings, str]:
    holdings = Holdings.of(held)
    return holdings, holdings.digest


def _refusal(version_id: str, reason: str) -> LorryError:
    if reason == "unknown":
        return VersionNotFound(f"The registry knows no version {version_id}.")
    text = f"Version {version_id} {_REASONS.get(reason, f'is withheld by the registry: {reason}')}."
    return NotServable(text, reason=reason)
