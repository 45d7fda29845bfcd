"""Every metric of an engine that holds nothing: what alerts and documents are compared with."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from serving.engine.eraser import Eraser
from serving.engine.metrics import EngineMetrics
from serving.engine.pool.crowd import Crowd
from serving.engine.pool.limits import Limits
from serving.engine.pool.pool import AdapterPool
from serving.engine.pool.tier import Entry, Tier
from serving.engine.pool_gauges import show_pool
from serving.engine.steward import Steward


class Nowhere:
    """A pool's store and a disk, of which nothing is asked."""

    max_bytes = 1

    def usage(self) -> list[Entry]:
        """Hold nothing."""
        return []


def engine_metrics() -> CollectorRegistry:
    """Return a registry with all that an engine exposes."""
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry)
    below: object = Nowhere()
    limits = Limits(slots=2, live_slots=1, seats=4, live_seats=0)
    host = Tier("host memory", max_bytes=1, max_entries=3)
    pool = AdapterPool(below, limits=limits, host=host, host_entries=3, host_live_entries=1, arrivals=1)  # type: ignore[arg-type]
    eraser = Eraser(below, ledger=metrics.ledger)  # type: ignore[arg-type]
    show_pool(metrics, pool, Steward(pool, disk=below, eraser=eraser, crowd=Crowd(), slots=2))  # type: ignore[arg-type]
    return registry
