"""Prometheus text, read: single values, and what a histogram saw between two readings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a histogram saw: how many, their sum, and how many up to each bucket's edge, in its unit."""

    count: float
    total: float
    up_to: dict[float, float]

    @property
    def mean(self) -> float:
        """The mean; NaN of nothing."""
        return self.total / self.count if self.count else math.nan

    def at_most(self, share: float) -> float:
        """Return the edge that at least `share` of what was seen does not exceed: never less than the quantile."""
        wanted = share * self.count
        return next((edge for edge, below in sorted(self.up_to.items()) if below >= wanted), math.nan)


class Exposition:
    """One reading of ``/metrics``; samples of equal names and different other labels are added up."""

    def __init__(self, text: str) -> None:
        self.size_bytes = len(text)
        self.series = 0
        self._samples: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.series += 1
                self._samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that carry `labels`; 0 when there is none."""
        wanted = set(labels.items())
        return sum(value for found, value in self._samples.get(name, {}).items() if wanted <= found)

    def histogram_since(self, before: Exposition, name: str, **labels: str) -> Seen:
        """Return what histogram `name` saw since an earlier reading."""
        edges = {dict(found)["le"] for found in self._samples.get(f"{name}_bucket", {})}
        return Seen(
            count=self.value(f"{name}_count", **labels) - before.value(f"{name}_count", **labels),
            total=self.value(f"{name}_sum", **labels) - before.value(f"{name}_sum", **labels),
            up_to={
                float(edge): self.value(f"{name}_bucket", le=edge, **labels)
                - before.value(f"{name}_bucket", le=edge, **labels)
                for edge in edges
            },
        )
