"""What the benchmarks of operations draw and reckon, without engines."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

from bench.ops_affinity import _asks
from bench.ops_soak import Sample, Soak, _measures


def drawn(seed: int, count: int = 2_000) -> Counter[str]:
    versions = [f"v{number:032x}" for number in range(200)]
    return Counter(key for key, _ in _asks(versions, count=count, seed=seed))


def test_both_sides_are_asked_the_same_by_few_popular_users_and_many_others() -> None:
    assert drawn(1) == drawn(1) != drawn(2)
    ordered = [count for _, count in drawn(1).most_common()]
    assert ordered[0] > 4 * ordered[9] > 8 * ordered[60] > 0
    assert len(ordered) > 150


def soak(*, late: Sample, failures: list[str]) -> Soak:
    nothing: Any = None
    found = Soak(fleet=nothing, factory=nothing, folder=Path(), until=0.0, numbers=itertools.count())
    early = Sample(resident_bytes=100 << 20, descriptors=50, connections=9)
    found.samples["engine-0"] = [early] * 16 + [late] * 4
    found.ended["live answered"] = 10
    found.failures = failures
    return found


def test_growth_and_failures_are_missed_targets_and_standing_still_is_not() -> None:
    same = Sample(resident_bytes=104 << 20, descriptors=50, connections=12)
    grown = Sample(resident_bytes=106 << 20, descriptors=60, connections=14)
    assert [each.met for each in _measures(soak(late=same, failures=[]), minutes=5)] == [True, True, True, True]
    assert [each.met for each in _measures(soak(late=grown, failures=["live: 503"]), minutes=5)] == [
        False,
        False,
        False,
        False,
    ]
