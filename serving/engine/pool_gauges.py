"""What the pool holds now, for ``/metrics``: read when somebody looks, so that it cannot go stale."""

from __future__ import annotations

from functools import partial

from serving.engine.metrics import EngineMetrics
from serving.engine.pool.limits import CLASSES
from serving.engine.pool.observer import TIERS
from serving.engine.pool.pool import AdapterPool
from serving.engine.steward import Steward


def show_pool(metrics: EngineMetrics, pool: AdapterPool, steward: Steward) -> None:
    """Add gauges of residents, bytes, leases and queues."""
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


def _total(steward: Steward, tier: str, which: int) -> float:
    name = next(each for each in TIERS if each == tier)
    return steward.totals(name)[which]
