"""What host memory holds, for those who ask."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One version in host memory; `slot` is the device slot that it has as well, if any."""

    version_id: str
    size_bytes: int
    leases: int
    pinned: bool
    in_flight: bool
    slot: int | None = None
