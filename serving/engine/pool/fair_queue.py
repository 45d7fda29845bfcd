"""The requests of one class that wait, in an order that is fair between tenants.

Tenants take turns by deficit round robin over tokens. Within a tenant, its adapters take turns, or are gathered: then
those that are in flight go first, so that one adapter's requests run together and its slot is soon free. Each adapter's
requests are first come, first served. Whoever waits is passed only finitely often by others that wait, as long as the
caller lets an adapter in flight be joined only finitely often.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What the queue needs to know of a request."""

    @property
    def version_id(self) -> str | None:
        """The adapter it waits for; None = none, and it takes turns with its tenant's adapters."""

    @property
    def tenant(self) -> str:
        """An opaque name; requests of equal names share one turn."""

    @property
    def tokens(self) -> int:
        """What it will cost its tenant."""


Item = TypeVar("Item", bound=Waiting)


@dataclass
class _Line(Generic[Item]):
    """One tenant's requests, by adapter; the first adapter is next."""

    deficit: int = 0
    groups: OrderedDict[str | None, OrderedDict[int, Item]] = field(default_factory=OrderedDict)
    length: int = 0


class FairQueue(Generic[Item]):
    """Holds what waits; the caller says what may be taken."""

    def __init__(self, *, quantum: int, gather: bool = False) -> None:
        """Describe an empty queue.

        Args:
            quantum: tokens that a tenant may spend each time its turn comes.
            gather: whether requests for adapters in flight go before all others of their tenant.
        """
        self._quantum = quantum
        self._gather = gather
        self._lines: dict[str, _Line[Item]] = {}
        self._ring: deque[str] = deque()
        self._versions: dict[str | None, dict[int, Item]] = {}
        self._length = 0
        self._arrivals = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        return (item for line in self._lines.values() for group in line.groups.values() for item in group.values())

    @property
    def versions(self) -> Collection[str | None]:
        """The distinct adapters waited for."""
        return self._versions.keys()

    def first_for(self, version_id: str | None) -> Item | None:
        """Return who has waited longest for this adapter; None when nobody waits for it."""
        return next(iter(self._versions.get(version_id, {}).values()), None)

    def push(self, item: Item) -> int:
        """Append `item` to its tenant's line; returns its number, which `remove` wants."""
        self._arrivals += 1
        line = self._lines.get(item.tenant)
        if line is None:
            line = self._lines[item.tenant] = _Line()
            self._ring.append(item.tenant)
        line.groups.setdefault(item.version_id, OrderedDict())[self._arrivals] = item
        line.length += 1
        self._versions.setdefault(item.version_id, {})[self._arrivals] = item
        self._length += 1
        return self._arrivals

    def peek(self, *, joinable: Sequence[str | None], blocked: Collection[str | None], slot_free: bool) -> Item | None:
        """Return who is next, or None when nobody who waits may be taken.

        A tenant whose requests are all blocked is passed and keeps what it saved. Calling again without a change
        in between returns the same request.

        Args:
            joinable: adapters in flight that a request may join; where requests are gathered, the first go first.
            blocked: adapters in flight that it may not join.
            slot_free: whether an adapter that is not in flight may be taken.
        """
        if not self._has(joinable, blocked, slot_free):
            return None
        lines = [self._lines[tenant] for tenant in self._ring]
        firsts = [self._first(line, joinable, blocked, slot_free) for line in lines]
        payable = [(line, item) for line, item in zip(lines, firsts, strict=True) if item is not None]
        turns = min(max(0, math.ceil((item.tokens - line.deficit) / self._quantum)) for line, item in payable)
        for line, _ in payable:
            line.deficit += turns * self._quantum  # whole rounds in which nobody can pay yet
        for line, first in zip(lines, firsts, strict=True):
            if first is not None and line.deficit >= first.tokens:
                return first
            if first is not None:
                line.deficit += self._quantum
            self._ring.rotate(-1)
        raise AssertionError("one of them can pay after so many rounds")

    def take(self, item: Item, number: int) -> None:
        """Remove `item`, charge its tenant, and let the tenant's other adapters go before its own."""
        line = self._lines[item.tenant]
        line.deficit -= item.tokens
        if item.version_id in line.groups:
            line.groups.move_to_end(item.version_id)
        self.remove(item, number)

    def remove(self, item: Item, number: int) -> None:
        """Forget `item`; a tenant without requests loses what it saved."""
        line = self._lines[item.tenant]
        group = line.groups[item.version_id]
        del group[number]
        if not group:
            del line.groups[item.version_id]
        line.length -= 1
        if not line.length:
            del self._lines[item.tenant]
            self._ring.remove(item.tenant)
        self._length -= 1
        del self._versions[item.version_id][number]
        if not self._versions[item.version_id]:
            del self._versions[item.version_id]

    def length_of(self, tenant: str) -> int:
        """Return how many requests of `tenant` wait."""
        line = self._lines.get(tenant)
        return line.length if line else 0

    def newest_of_longest(self) -> Item:
        """Return the latest arrival of the tenant with most requests. The queue is not empty."""
        line = max(self._lines.values(), key=lambda line: line.length)
        newest = {next(reversed(group)): group for group in line.groups.values()}
        number = max(newest)
        return newest[number][number]

    def _has(self, joinable: Sequence[str | None], blocked: Collection[str | None], slot_free: bool) -> bool:
        if slot_free:
            return len(self._versions) > sum(version in self._versions for version in blocked)
        return any(version in self._versions for version in joinable)

    def _first(
        self, line: _Line[Item], joinable: Sequence[str | None], blocked: Collection[str | None], slot_free: bool
    ) -> Item | None:
        if self._gather:
            gathered = next((line.groups[version] for version in joinable if version in line.groups), None)
            if gathered is not None:
                return next(iter(gathered.values()))
        if slot_free:
            group = next((group for version, group in line.groups.items() if version not in blocked), None)
        else:
            groups = (line.groups[version] for version in joinable if version in line.groups)
            group = min(groups, key=lambda group: next(iter(group)), default=None)
        return next(iter(group.values())) if group else None
