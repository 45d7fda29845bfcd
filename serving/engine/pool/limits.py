"""How much of an engine may be in use at once, and how much of it batch work may take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from serving.errors import EngineMisconfigured

RequestClass = Literal["live", "batch"]
CLASSES: tuple[RequestClass, ...] = get_args(RequestClass)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds that an `Admission` keeps.

    Attributes:
        slots: distinct adapters in flight.
        live_slots: slots that no adapter with a batch request may hold.
        seats: sequences in flight, whatever their adapter.
        live_seats: seats that batch requests never take.
        queue: requests that may wait, of each class.
        turn: requests of one class that may still join an adapter in flight once another adapter waits for a slot.
        patience_seconds: how much later than a live request that waits for a slot another one may have come, and still
            join an adapter in flight; and how long batch requests go on joining.
        live_streak: live requests admitted in a row while batch requests wait; then one batch request goes first.
        quantum: tokens that a tenant may spend each time its turn comes.
    """

    slots: int
    live_slots: int = 0
    seats: int = 64
    live_seats: int = 0
    queue: int = 1024
    turn: int = 64
    patience_seconds: float = 1.0
    live_streak: int = 64
    quantum: int = 1024

    def __post_init__(self) -> None:
        for reason in self._faults():
            raise EngineMisconfigured(reason)

    def _faults(self) -> Iterator[str]:
        if not 0 <= self.live_slots < self.slots:
            yield f"live_slots ({self.live_slots}) must leave at least one of the {self.slots} slots to batch requests"
        if not 0 <= self.live_seats < self.seats:
            yield f"live_seats ({self.live_seats}) must leave at least one of the {self.seats} seats to batch requests"
        for name in ("queue", "turn", "live_streak", "quantum"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1"
        if not self.patience_seconds >= 0:
            yield "patience_seconds must not be negative"

    def slots_of(self, kind: RequestClass) -> int:
        """Return how many distinct adapters may have a request of `kind` in flight."""
        return self.slots if kind == "live" else self.slots - self.live_slots

    def seats_of(self, kind: RequestClass) -> int:
        """Return how many sequences of `kind` may be in flight."""
        return self.seats if kind == "live" else self.seats - self.live_seats
