"""Reading /metrics: sums over labels, differences of histograms, and a quantile that is never too small."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from bench.exposition import Exposition


def reading(registry: CollectorRegistry) -> Exposition:
    return Exposition(generate_latest(registry).decode())


def test_a_value_is_the_sum_of_the_samples_that_carry_the_labels() -> None:
    registry = CollectorRegistry()
    counter = Counter("seen", "…", ["kind", "side"], registry=registry)
    counter.labels("live", "a").inc(2)
    counter.labels("live", "b").inc(3)
    counter.labels("batch", "a").inc(5)
    found = reading(registry)
    assert found.value("seen_total") == 10
    assert found.value("seen_total", kind="live") == 5
    assert found.value("unknown") == 0


def test_a_histogram_shows_only_what_came_since() -> None:
    registry = CollectorRegistry()
    waits = Histogram("wait", "…", ["class"], buckets=(0.1, 0.5, 1.0), registry=registry)
    waits.labels("live").observe(0.9)
    before = reading(registry)
    for value in (0.05,) * 98 + (0.3, 0.4):
        waits.labels("live").observe(value)
    waits.labels("batch").observe(5.0)
    seen = reading(registry).histogram_since(before, "wait", **{"class": "live"})
    assert seen.count == 100
    assert math.isclose(seen.mean, (0.05 * 98 + 0.7) / 100)
    assert (seen.at_most(0.98), seen.at_most(0.99)) == (0.1, 0.5)


def test_a_quantile_beyond_the_last_edge_is_infinite_and_of_nothing_is_not_a_number() -> None:
    registry = CollectorRegistry()
    waits = Histogram("wait", "…", buckets=(0.1,), registry=registry)
    before = reading(registry)
    assert math.isnan(reading(registry).histogram_since(before, "wait").mean)
    waits.observe(3.0)
    assert reading(registry).histogram_since(before, "wait").at_most(0.5) == math.inf
