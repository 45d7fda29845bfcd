"""Which adapters load slowly and which fail: what metrics' labels must not say.

Bounded lists of version ids, times and counts; they are shown on an authenticated route only, and die with the process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

_SLOWEST = 32
_FAILING = 64
_SLOW_FOR = timedelta(hours=1)


@dataclass(kw_only=True)
class LoadRecord:
    """One load under way: its seconds by stage, and what went wrong, if anything did."""

    version_id: str
    seconds: dict[str, float] = field(default_factory=dict)
    error: BaseException | None = None

    @property
    def source(self) -> Literal["disk", "registry"]:
        """Where its bytes came from: the registry's store when anything was downloaded, else this host's disk."""
        return "registry" if "download" in self.seconds else "disk"

    @property
    def has_source(self) -> bool:
        """Whether it came so far that its bytes were read from somewhere."""
        return not self.seconds.keys().isdisjoint({"download", "open"})

    @property
    def total_seconds(self) -> float:
        """What its stages took together; the workers' own are within ``engine_load``."""
        outer = ("resolve", "download", "open", "engine_load")
        return sum(self.seconds.get(stage, 0.0) for stage in outer)

    def add(self, stage: str, seconds: float) -> None:
        """Note a stage; one that is done twice counts twice."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass
class _Failing:
    count: int = 0
    reason: str = ""
    last_at: datetime | None = None


class LoadLedger:
    """The slowest load of each version in the last hour, and the versions whose loads fail until one succeeds."""

    def __init__(
        self,
        *,
        slowest: int = _SLOWEST,
        failing: int = _FAILING,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._max_slowest = slowest
        self._max_failing = failing
        self._now = now
        self._slowest: dict[str, tuple[float, datetime, dict[str, Any]]] = {}
        self._failing: OrderedDict[str, _Failing] = OrderedDict()

    def loaded(self, record: LoadRecord) -> None:
        """Note a load that succeeded: it does not fail any more."""
        self._failing.pop(record.version_id, None)
        self._age()
        total = record.total_seconds
        known = self._slowest.get(record.version_id)
        if known is not None and known[0] >= total:
            return
        stages = {stage: round(seconds, 6) for stage, seconds in record.seconds.items()}
        entry = {"source": record.source, "seconds": round(total, 6), "stages": stages}
        self._slowest[record.version_id] = (total, self._now(), entry)
        if len(self._slowest) > self._max_slowest:
            del self._slowest[min(self._slowest, key=lambda version_id: self._slowest[version_id][0])]

    def failed(self, record: LoadRecord, *, reason: str) -> None:
        """Note a load that failed; the versions that failed longest ago are forgotten first."""
        failing = self._failing.setdefault(record.version_id, _Failing())
        failing.count += 1
        failing.reason, failing.last_at = reason, self._now()
        self._failing.move_to_end(record.version_id)
        while len(self._failing) > self._max_failing:
            self._failing.popitem(last=False)

    def forget(self, version_id: str) -> None:
        """Forget a version that was erased."""
        self._slowest.pop(version_id, None)
        self._failing.pop(version_id, None)

    def slowest(self) -> list[dict[str, Any]]:
        """Return the slowest load of each version in the last hour, slowest first."""
        self._age()
        ranked = sorted(self._slowest.items(), key=lambda item: -item[1][0])
        return [{"version_id": version_id, **entry, "at": at.isoformat()} for version_id, (_, at, entry) in ranked]

    def failing(self) -> list[dict[str, Any]]:
        """Return the versions whose last load failed, the latest first; `failures` counts since the last success."""
        return [
            {
                "version_id": version_id,
                "failures": failing.count,
                "reason": failing.reason,
                "last_at": failing.last_at.isoformat() if failing.last_at else None,
            }
            for version_id, failing in reversed(self._failing.items())
        ]

    def _age(self) -> None:
        oldest = self._now() - _SLOW_FOR
        self._slowest = {version_id: each for version_id, each in self._slowest.items() if each[1] >= oldest}
