"""What an on-call engineer sees of adapter loading on the engine's ``/metrics``.

Label values come from the fixed sets below: never a version, a tenant or a user.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kit.errors import LorryError
from registry.errors import ArtifactError, BaseModelMismatch, NotServable, RegistryUnavailable, VersionNotFound
from serving.engine.pool.limits import CLASSES, RequestClass
from serving.errors import (
    AdapterDamaged,
    AdapterNotLoaded,
    AdapterUnfit,
    CacheBusy,
    CacheFull,
    RegistryRefusedEngine,
    TierFull,
)

Stage = Literal["resolve", "download", "verify", "install", "check", "engine_load"]

_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_REASONS: dict[type[LorryError], str] = {
    VersionNotFound: "unknown_version",
    NotServable: "not_servable",
    BaseModelMismatch: "base_mismatch",
    AdapterUnfit: "unfit",
    RegistryUnavailable: "registry_unavailable",
    RegistryRefusedEngine: "registry_refused",
    AdapterDamaged: "damaged",
    ArtifactError: "damaged",
    CacheFull: "disk_full",
    CacheBusy: "cache_busy",
    AdapterNotLoaded: "engine_load",
    TierFull: "no_room",
}
OTHER_REASON = "other"
_REFUSALS = ("suspended", "erased", "removed", "unfinished", "unknown", "out_of_touch", "replaced", OTHER_REASON)


class EngineMetrics:
    """The loading metrics of one API server process.

    `lorry_adapter_load_seconds` has one series a stage; a stage that failed is observed as well, so that a
    slow outage shows. `lorry_adapter_loads_total` counts whole loads by outcome.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Create the series, all at zero, in `registry`: where vLLM looks when it answers ``/metrics``."""
        self._seconds = Histogram(
            "lorry_adapter_load_seconds",
            "Seconds spent in one stage of loading an adapter.",
            ["stage"],
            buckets=_BUCKETS_SECONDS,
            registry=registry,
        )
        self._loads = Counter(
            "lorry_adapter_loads", "Adapter loads that ended, by outcome.", ["outcome"], registry=registry
        )
        self._failures = Counter(
            "lorry_adapter_load_failures", "Adapter loads that failed, by reason.", ["reason"], registry=registry
        )
        self._refusals = Counter(
            "lorry_adapter_refusals",
            "Requests for an adapter that the registry's directory does not let this engine serve, by reason.",
            ["reason"],
            registry=registry,
        )
        self._in_touch = Gauge(
            "lorry_engine_in_touch",
            "1 = the registry was heard within the lease, so adapters are served; 0 = every adapter is refused.",
            registry=registry,
        )
        self._heartbeats = Histogram(
            "lorry_engine_heartbeat_seconds",
            "Seconds of one heartbeat to the registry, until its answer was obeyed or it failed.",
            ["outcome"],
            buckets=_BUCKETS_SECONDS,
            registry=registry,
        )
        self._stalls = Histogram(
            "lorry_engine_stall_seconds",
            "Seconds for which copying an adapter into a slot kept the engine's thread.",
            buckets=_BUCKETS_SECONDS,
            registry=registry,
        )
        self._waits = Histogram(
            "lorry_slot_wait_seconds",
            "Seconds that an admitted request waited for room, a slot and seats; loading not counted.",
            ["class"],
            buckets=_BUCKETS_SECONDS,
            registry=registry,
        )
        for kind in CLASSES:
            self._waits.labels(kind)
        for reason in _REFUSALS:
            self._refusals.labels(reason)
        for outcome in ("answered", "failed"):
            self._heartbeats.labels(outcome)
        for stage in get_args(Stage):
            self._seconds.labels(stage)
        for outcome in ("loaded", "failed"):
            self._loads.labels(outcome)
        for reason in {*_REASONS.values(), OTHER_REASON}:
            self._failures.labels(reason)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Observe the time the block takes, also when it raises."""
        started = perf_counter()
        try:
            yield
        finally:
            self._seconds.labels(stage).observe(perf_counter() - started)

    def loaded(self) -> None:
        """Count one adapter that requests can now use."""
        self._loads.labels("loaded").inc()

    def failed(self, error: BaseException) -> None:
        """Count one load that ended in `error`, under a reason from the fixed set."""
        self._loads.labels("failed").inc()
        self._failures.labels(reason_of(error)).inc()

    def refused(self, reason: str) -> None:
        """Count one request that the directory does not let pass, under a reason from the fixed set."""
        self._refusals.labels(reason if reason in _REFUSALS else OTHER_REASON).inc()

    def activated(self, seconds: float) -> None:
        """Observe one copy into a slot."""
        self._stalls.observe(seconds)

    def waited(self, kind: RequestClass, seconds: float) -> None:
        """Observe one admitted request's wait."""
        self._waits.labels(kind).observe(seconds)

    def in_touch(self, is_open: bool) -> None:
        """Show whether adapters are served at all."""
        self._in_touch.set(is_open)

    def heartbeat(self, outcome: Literal["answered", "failed"], seconds: float) -> None:
        """Observe one exchange with the directory."""
        self._heartbeats.labels(outcome).observe(seconds)


def reason_of(error: BaseException) -> str:
    """Return the label value for `error`: that of its nearest known class, else ``other``."""
    return next((_REASONS[cls] for cls in type(error).__mro__ if cls in _REASONS), OTHER_REASON)
