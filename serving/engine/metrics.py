"""What an on-call engineer sees of adapters on the engine's ``/metrics``.

Label values come from the fixed sets below: never a version, a tenant or a user. What labels cannot say, which
adapters are slow and which fail, is in `ledger.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kit.background import FAILURES
from kit.errors import LorryError, RequestTooLarge
from registry.errors import (
    ArtifactError,
    BaseModelMismatch,
    NotServable,
    RegistryUnavailable,
    SignatureInvalid,
    VersionNotFound,
)
from serving.engine.ledger import LoadLedger, LoadRecord
from serving.engine.pool.limits import CLASSES, RequestClass
from serving.engine.pool.observer import FOUND, REASONS, TIERS, Found, Observer, Reason, TierName
from serving.errors import (
    AdapterClosed,
    AdapterDamaged,
    AdapterNotLoaded,
    AdapterUnfit,
    AdmissionTimeout,
    CacheBusy,
    CacheFull,
    EngineBusy,
    EngineDraining,
    EngineOutOfTouch,
    EngineReplaced,
    MachineRefused,
    ObjectStoreUnavailable,
    OrderInvalid,
    RegistryRefusedEngine,
    TierFull,
    TooManySequences,
)

Stage = Literal["resolve", "download", "open", "engine_load", "queue", "read", "prepare"]
"""``download`` or ``open`` (from the disk) ends with verified bytes; ``engine_load`` is the way into the workers'
memory, and from ``queue`` on a part of it, as the slowest worker measured it."""

_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SOURCES = ("registry", "disk", "none")  # none: the load ended before any byte was read
_REASONS: dict[type[LorryError], str] = {
    VersionNotFound: "unknown_version",
    NotServable: "not_servable",
    BaseModelMismatch: "base_mismatch",
    SignatureInvalid: "signature",
    AdapterUnfit: "unfit",
    RegistryUnavailable: "registry_unavailable",
    ObjectStoreUnavailable: "store_unavailable",
    RegistryRefusedEngine: "registry_refused",
    AdapterDamaged: "damaged",
    ArtifactError: "damaged",
    CacheFull: "disk_full",
    CacheBusy: "cache_busy",
    MachineRefused: "machine",
    AdapterNotLoaded: "engine_load",
    TierFull: "no_room",
    AdapterClosed: "closed",
    EngineBusy: "busy",
    AdmissionTimeout: "deadline",
    EngineDraining: "draining",
    EngineOutOfTouch: "out_of_touch",
    EngineReplaced: "replaced",
    OrderInvalid: "invalid",
    TooManySequences: "invalid",
    RequestTooLarge: "invalid",
}
_WITHHELD = ("suspended", "erased", "removed", "unfinished")
OTHER_REASON = "other"
_ALL_REASONS = (*sorted({*_REASONS.values()}), *_WITHHELD, OTHER_REASON)

_load: ContextVar[LoadRecord | None] = ContextVar("lorry_load", default=None)


class EngineMetrics(Observer):
    """The adapter metrics of one API server process.

    `lorry_adapter_load_seconds` has one series a stage and source; a stage that failed is observed as well, so that a
    slow outage shows. `lorry_adapter_loads_total` counts whole loads by outcome: what was refused before anything was
    done for it is no load.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Create the series, all at zero, in `registry`: where vLLM looks when it answers ``/metrics``."""
        self._registry = registry
        registry.register(FAILURES)
        self.ledger = LoadLedger()
        self._seconds = self._histogram(
            "lorry_adapter_load_seconds",
            "Seconds spent in one stage of loading an adapter, by where its bytes came from.",
            {"stage": get_args(Stage), "source": _SOURCES},
        )
        self._loads = self._counter(
            "lorry_adapter_loads", "Adapter loads that ended, by outcome.", {"outcome": ("loaded", "failed")}
        )
        self._failures = self._counter(
            "lorry_adapter_load_failures", "Adapter loads that failed, by reason.", {"reason": _ALL_REASONS}
        )
        self._refusals = self._counter(
            "lorry_adapter_refusals",
            "Requests that were refused before they ran, by reason; what was ended while it ran is not in here.",
            {"reason": _ALL_REASONS},
        )
        self._ended = self._counter(
            "lorry_adapter_requests_ended",
            "Requests that were ended while they ran, because their adapter had to leave, by reason.",
            {"reason": _ALL_REASONS},
        )
        self._hits = self._counter(
            "lorry_adapter_requests",
            "Requests for an adapter that were admitted, by the fastest tier in which they found it and by class.",
            {"tier": FOUND, "class": CLASSES},
        )
        self._evictions = self._counter(
            "lorry_adapter_evictions",
            "Adapters that left a tier, by reason.",
            {"tier": TIERS, "reason": REASONS},
        )
        self._stalls = self._histogram(
            "lorry_engine_stall_seconds",
            "Seconds for which copying an adapter into a slot kept the engine's thread.",
            {},
        )
        self._waits = self._histogram(
            "lorry_slot_wait_seconds",
            "Seconds that an admitted request waited for room, a slot and seats; loading not counted.",
            {"class": CLASSES},
        )
        self._heartbeats = self._histogram(
            "lorry_engine_heartbeat_seconds",
            "Seconds of one heartbeat to the registry, until its answer was obeyed or it failed.",
            {"outcome": ("answered", "failed")},
        )
        self._under_way = Gauge(
            "lorry_adapter_loads_under_way", "Adapters that are on their way into host memory.", registry=registry
        )
        self._in_touch = Gauge(
            "lorry_engine_in_touch",
            "1 = the registry was heard within the lease, so adapters are served; 0 = every adapter is refused.",
            registry=registry,
        )

    @contextmanager
    def loading(self, version_id: str) -> Iterator[LoadRecord]:
        """Collect what happens within the block, in tasks that it starts as well, and count it as one load."""
        record = LoadRecord(version_id=version_id)
        token = _load.set(record)
        try:
            with self._under_way.track_inprogress():
                yield record
        except BaseException as exc:
            self._end(record, record.error or exc)
            raise
        else:
            self._end(record, None)
        finally:
            _load.reset(token)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Observe the time the block takes, also when it raises."""
        started = perf_counter()
        try:
            yield
        finally:
            self._observe(stage, perf_counter() - started)

    def worker_stages(self, seconds: Mapping[str, float]) -> None:
        """Observe what the slowest worker measured, by stage; other names than those of `Stage` are left out."""
        for stage in get_args(Stage):
            if stage in seconds:
                self._observe(stage, seconds[stage])

    def loaded(self) -> None:
        """Count one adapter that requests can now use; within `loading`, its end does."""
        if _load.get() is None:
            self._loads.labels("loaded").inc()

    def failed(self, error: BaseException) -> None:
        """Count one load that ended in `error`; within `loading`, its end does."""
        if (record := _load.get()) is None:
            self._count_failure(error)
        else:
            record.error = error

    def admitted(self, kind: RequestClass, *, found: Found, wait_seconds: float) -> None:
        """Count a request that may run, and observe how long it waited."""
        self._hits.labels(found, kind).inc()
        self._waits.labels(kind).observe(wait_seconds)

    def evicted(self, tier: TierName, reason: Reason) -> None:
        """Count one adapter that left a tier."""
        self._evictions.labels(tier, reason).inc()

    def refused(self, error: BaseException) -> None:
        """Count one request that was refused with `error`."""
        self._refusals.labels(reason_of(error)).inc()

    def ended(self, error: BaseException, count: int) -> None:
        """Count requests that were ended with `error` while they ran."""
        self._ended.labels(reason_of(error)).inc(count)

    def activated(self, seconds: float) -> None:
        """Observe one copy into a slot."""
        self._stalls.observe(seconds)

    def in_touch(self, is_open: bool) -> None:
        """Show whether adapters are served at all."""
        self._in_touch.set(is_open)

    def heartbeat(self, outcome: Literal["answered", "failed"], seconds: float) -> None:
        """Observe one exchange with the directory."""
        self._heartbeats.labels(outcome).observe(seconds)

    def show(self, name: str, text: str, read: Mapping[str, Callable[[], float]], *, label: str) -> None:
        """Add a gauge that is read whenever somebody looks: one series a label value, each from its own function."""
        gauge = Gauge(name, text, [label], registry=self._registry)
        for value, function in read.items():
            gauge.labels(value).set_function(function)

    def show_one(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge without labels that is read whenever somebody looks."""
        Gauge(name, text, registry=self._registry).set_function(read)

    def _observe(self, stage: Stage, seconds: float) -> None:
        if (record := _load.get()) is None:
            self._seconds.labels(stage, "registry").observe(seconds)
        else:
            record.add(stage, seconds)

    def _end(self, record: LoadRecord, error: BaseException | None) -> None:
        source = record.source if record.has_source else "none"
        for stage, seconds in record.seconds.items():
            self._seconds.labels(stage, source).observe(seconds)
        if error is None:
            self._loads.labels("loaded").inc()
            self.ledger.loaded(record)
        elif record.seconds or not isinstance(error, LorryError):
            self._count_failure(error)
            if not isinstance(error, VersionNotFound):  # anybody can make up names
                self.ledger.failed(record, reason=reason_of(error))

    def _count_failure(self, error: BaseException) -> None:
        self._loads.labels("failed").inc()
        self._failures.labels(reason_of(error)).inc()

    def _counter(self, name: str, text: str, labels: Mapping[str, tuple[str, ...]]) -> Counter:
        counter = Counter(name, text, list(labels), registry=self._registry)
        _touch(counter, labels)
        return counter

    def _histogram(self, name: str, text: str, labels: Mapping[str, tuple[str, ...]]) -> Histogram:
        histogram = Histogram(name, text, list(labels), buckets=_BUCKETS_SECONDS, registry=self._registry)
        _touch(histogram, labels)
        return histogram


def reason_of(error: BaseException) -> str:
    """Return the label value for `error`: why the registry withholds it, else its nearest known class, else other."""
    if isinstance(error, LorryError) and (stated := error.details.get("reason")) in _WITHHELD:
        return str(stated)
    return next((_REASONS[cls] for cls in type(error).__mro__ if cls in _REASONS), OTHER_REASON)


def _touch(metric: Counter | Histogram, labels: Mapping[str, tuple[str, ...]]) -> None:
    """Make every series of a metric, so that each is there before it first counts."""
    combinations: list[tuple[str, ...]] = [()]
    for values in labels.values():
        combinations = [(*head, value) for head in combinations for value in values]
    for combination in combinations:
        if combination:
            metric.labels(*combination)
