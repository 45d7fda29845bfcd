"""What the pool holds now, for ``/metrics``: read when somebody looks, so that it cannot go stale."""

from __future__ import annotations

from functools import partial

from serving.engine.metrics import EngineMetrics
from serving.engine.pool.limits import CLASSES
from serving.engine.pool.observer import TIERS, TierName
from serving.engine.pool.pool import AdapterPool
from serving.engine.steward import Steward


def show_pool(metrics: EngineMetrics, pool: AdapterPool, steward: Steward) -> None:
    """Add gauges of residents, bytes and their bounds, of leases, queues and loads."""
    metrics.show(
        "lorry_adapters",
        "Adapters that a tier holds.",
        {tier: partial(_total, steward, tier, 0) for tier in TIERS},
        label="tier",
    )
    metrics.show(
        "lorry_adapter_bytes",
        "Bytes of the adapters that a tier holds; of a slot, what its adapter takes in host memory.",
        {tier: partial(_total, steward, tier, 1) for tier in TIERS},
        label="tier",
    )
    metrics.show(
        "lorry_adapters_max",
        "Adapters that a tier may hold; tiers that only bytes bound have no series.",
        {tier: partial(_bound, steward, tier, "max_adapters") for tier in TIERS if tier != "disk"},
        label="tier",
    )
    metrics.show(
        "lorry_adapter_bytes_max",
        "Bytes of the adapters that a tier may hold; slots are bounded by number alone.",
        {tier: partial(_bound, steward, tier, "max_bytes") for tier in TIERS if tier != "slot"},
        label="tier",
    )
    metrics.show_one(
        "lorry_adapters_pinned", "Adapters that are kept in host memory until unpinned.", lambda: len(pool.host.pinned)
    )
    metrics.show(
        "lorry_adapter_leases",
        "Requests that were admitted and that the engine has not finished.",
        {kind: partial(pool.leases, kind) for kind in CLASSES},
        label="class",
    )
    metrics.show(
        "lorry_queue_depth",
        "Requests that wait for room, a slot or seats.",
        {kind: partial(pool.queued, kind) for kind in CLASSES},
        label="class",
    )
    metrics.show(
        "lorry_adapter_requests_loading",
        "Requests that wait until their adapter has arrived in host memory.",
        {kind: partial(pool.loading, kind) for kind in CLASSES},
        label="class",
    )
    metrics.show_one(
        "lorry_requests_inside",
        "Requests of any model that have come in and were not answered to the end.",
        steward.inside,
    )


def _bound(steward: Steward, tier: TierName, which: str) -> float:
    return float(steward.bounds()[tier][which] or 0)


def _total(steward: Steward, tier: str, which: int) -> float:
    name = next(each for each in TIERS if each == tier)
    return steward.totals(name)[which]
