"""Adapters in host memory, put there by a thread beside the engine's: read, checked, and ready to be copied.

The engine's thread only ever looks up what is ready. One adapter is prepared at a time, live before batch; what is
dropped while it is being prepared is thrown away when it is done. Between two adapters, memory for the next is made
ready.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, PriorityQueue
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

from kit.errors import LorryError
from serving.engine.opened import OpenedFiles
from serving.engine.worker.signals import SignalSender
from serving.engine.worker.spare import Spare
from serving.engine.worker.weights_file import AdapterFiles, read_adapter
from serving.errors import AdapterNotLoaded

_log = logging.getLogger(__name__)
_MOST_MESSAGE = 2000  # vLLM lists every tensor that it does not know; a signal has to stay in one datagram
_QUIET_SECONDS = 0.25  # by then the step that waited for the last adapter is mostly over


@dataclass(frozen=True, kw_only=True)
class StageOrder:
    """One adapter to bring into host memory.

    Attributes:
        version_id: what it is called from then on.
        number: vLLM's number for it.
        files: where they lie, opened and verified.
        urgent: whether a live request waits for it.
        call: returned in the signal, so that its sender knows that this order was met.
    """

    version_id: str
    number: int
    files: OpenedFiles
    urgent: bool = True
    call: int = 0


class Prepared(Protocol):
    """An adapter in the form that the engine copies into a slot."""

    @property
    def size_bytes(self) -> int:
        """Host memory that it takes."""

    def wipe(self) -> None:
        """Overwrite its weights."""


Ready = TypeVar("Ready", bound=Prepared)


@dataclass
class _Wanted:
    """What is under way, and the calls of everybody who ordered it."""

    order: StageOrder
    calls: list[int]


@dataclass(order=True)
class _Job:
    priority: int
    arrival: int
    order: StageOrder | None = field(compare=False)
    asked_at: float = field(compare=False, default_factory=perf_counter)


class Stager(Generic[Ready]):
    """The host-memory tier of one worker. Its methods take microseconds; the work is on its own thread."""

    def __init__(self, prepare: Callable[[StageOrder, AdapterFiles], Ready], *, signals: SignalSender) -> None:
        """Start nothing yet.

        Args:
            prepare: builds what the engine copies; called on the stager's thread.
            signals: where ends are told: ``staged`` with seconds by stage, or ``refused`` with the reason.
        """
        self._prepare = prepare
        self._signals = signals
        self._lock = threading.Lock()
        self._ready: dict[str, Ready] = {}
        self._wanted: dict[str, _Wanted] = {}
        self._jobs: PriorityQueue[_Job] = PriorityQueue()
        self._arrivals = count()
        self._spare = Spare()
        self._thread: threading.Thread | None = None

    def stage(self, order: StageOrder) -> str:
        """Bring an adapter into host memory; returns ``staged`` when it is there already, else ``queued``.

        An end that is ``queued`` is signalled, whichever it is; an order for what is under way joins it.
        """
        with self._lock:
            if order.version_id in self._ready:
                return "staged"
            known = self._wanted.get(order.version_id)
            hurry = known is None or (order.urgent and not known.order.urgent)
            self._wanted[order.version_id] = _Wanted(order, [*(known.calls if known else ()), order.call])
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lorry-stager", daemon=True)
                self._thread.start()
        if hurry:  # what is done already by then is skipped
            self._jobs.put(_Job(0 if order.urgent else 1, next(self._arrivals), order))
        return "queued"

    def get(self, version_id: str) -> Ready | None:
        """Return the prepared adapter; None when it is not in host memory."""
        return self._ready.get(version_id)

    def drop(self, version_id: str, *, wipe: bool = False) -> int:
        """Forget an adapter, overwriting its weights when `wipe`; returns the bytes that it took."""
        with self._lock:
            wanted = self._wanted.pop(version_id, None)
            ready = self._ready.pop(version_id, None)
        if wanted is not None:
            self._signals.send("dropped", version_id=version_id, calls=wanted.calls)
        if ready is None:
            return 0
        if wipe:
            ready.wipe()
        return ready.size_bytes

    def residents(self) -> dict[str, int]:
        """Return version_id → bytes of everything in host memory."""
        with self._lock:
            return {version_id: ready.size_bytes for version_id, ready in self._ready.items()}

    def close(self) -> None:
        """Stop the thread after what it is doing."""
        if self._thread is not None:
            self._jobs.put(_Job(-1, -1, None))
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (job := self._next()).order is not None:
            wanted = self._wanted.get(job.order.version_id)
            if wanted is not None:  # else it was dropped while it waited
                try:
                    self._stage(wanted.order, waited_seconds=perf_counter() - job.asked_at)
                except Exception:  # a mistake of ours; without this thread nothing would ever be loaded again
                    _log.exception("an adapter was not staged")
                    self._refuse(wanted.order, AdapterNotLoaded("The engine could not stage the adapter."))

    def _next(self) -> _Job:
        """Wait for a job; in a quiet moment, make memory ready for one."""
        while True:
            try:
                return self._jobs.get(timeout=None if self._spare.is_ready else _QUIET_SECONDS)
            except Empty:
                self._spare.make_ready(while_=self._jobs.empty)

    def _stage(self, order: StageOrder, *, waited_seconds: float) -> None:
        started = perf_counter()
        try:
            files = read_adapter(order.files, memory=self._spare.take)
            read = perf_counter()
            ready = self._prepare(order, files)
        except LorryError as exc:
            self._refuse(order, exc)
            return
        except Exception as exc:  # vLLM refuses with whatever it has at hand; the thread must outlive all of it
            _log.warning("an adapter could not be prepared", exc_info=True)
            self._refuse(order, AdapterNotLoaded(f"The engine could not prepare the adapter: {exc}"))
            return
        prepared = perf_counter()
        with self._lock:
            current = self._wanted.pop(order.version_id, None)
            if current is not None:
                self._ready[order.version_id] = ready
        if current is None:  # dropped meanwhile, perhaps erased
            ready.wipe()
            return
        seconds = {"queue": waited_seconds, "read": read - started, "prepare": prepared - read}
        self._signals.send(
            "staged", version_id=order.version_id, calls=current.calls, size_bytes=ready.size_bytes, seconds=seconds
        )

    def _refuse(self, order: StageOrder, error: LorryError) -> None:
        with self._lock:
            current = self._wanted.pop(order.version_id, None)
        calls = current.calls if current else [order.call]
        message = error.message if len(error.message) <= _MOST_MESSAGE else f"{error.message[:_MOST_MESSAGE]} …"
        refusal: dict[str, Any] = {"kind": type(error).__name__, "message": message, "field": error.field}
        self._signals.send("refused", version_id=order.version_id, calls=calls, **refusal)
