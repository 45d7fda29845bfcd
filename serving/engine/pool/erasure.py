"""What an erasure did, and where: the receipt that operators and auditors read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What taking a version out of the engine did, in all workers together.

    Attributes:
        named: whether requests could name it until then.
        host_bytes: overwritten in host memory.
        slots_zeroed: slots that held its weights; every one was zeroed and read back as zero.
        workers: workers that confirmed it.
        cached_blocks: what became of prefix-cache blocks computed with it: ``unreachable``, since their key holds a
            name and a path that no later load has; they are overwritten as the cache needs room.
    """

    named: bool
    host_bytes: int
    slots_zeroed: int
    workers: int
    cached_blocks: str = "unreachable"


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """What the pool did to erase a version from memory.

    Attributes:
        version_id: what was erased.
        leases: requests that ran on it when the erasure began.
        refused: requests that waited for it and were refused.
        waited_seconds: how long it took until the last of them let go.
        removal: what was then done.
    """

    version_id: str
    leases: int
    refused: int
    waited_seconds: float
    removal: Removal
