"""One bounded place where adapters are kept: a disk, host memory.

Law: the bounds hold at every moment, and what is held or pinned is never given up for something else.
A tier only keeps the books: whoever makes room deletes what `make_room` names.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from serving.errors import PinsFull, TierFull


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One adapter in a tier."""

    version_id: str
    size_bytes: int


class Tier:
    """A least-recently-used cache whose entries can be held (by leases, by work in progress) and pinned."""

    def __init__(self, name: str, *, max_bytes: int, max_entries: int | None = None, max_pinned: int = 0) -> None:
        """Describe an empty tier.

        Args:
            name: what refusals call it.
            max_bytes: sum of the entries' sizes.
            max_entries: number of entries; None = only bytes count.
            max_pinned: number of entries that may be pinned.
        """
        self._name = name
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._max_pinned = max_pinned
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._holds: Counter[str] = Counter()
        self._pinned: set[str] = set()
        self._bytes = 0

    def __contains__(self, version_id: object) -> bool:
        return version_id in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """The sum of the entries' sizes."""
        return self._bytes

    @property
    def max_bytes(self) -> int:
        """What the entries' sizes may come to."""
        return self._max_bytes

    @property
    def max_entries(self) -> int | None:
        """How many entries there may be; None = only bytes count."""
        return self._max_entries

    @property
    def pinned(self) -> frozenset[str]:
        """The versions that nothing but `unpin` lets go."""
        return frozenset(self._pinned)

    def entries(self) -> list[Entry]:
        """Return what is here, the least recently used first."""
        return list(self._entries.values())

    def make_room(self, version_id: str, size_bytes: int) -> list[Entry]:
        """Add `version_id`, taking out as many of the least recently used as that needs; returns those.

        The caller deletes what was taken out before it writes the new one. Adding what is here already replaces its
        size. Nothing changes when this raises.

        Raises:
            TierFull: when what is held and pinned leaves no room.
        """
        leaving = self.leaving(version_id, size_bytes)
        for entry in leaving:
            self._drop(entry.version_id)
        self.adopt(Entry(version_id=version_id, size_bytes=size_bytes))
        return leaving

    def leaving(
        self, version_id: str, size_bytes: int, *, besides_bytes: int = 0, keep: Collection[str] = ()
    ) -> list[Entry]:
        """Return what `make_room` would take out, and change nothing.

        Args:
            version_id: what is to be added.
            size_bytes: its size.
            besides_bytes: what others take of the same bound.
            keep: versions that cannot be taken out, besides those that are held and pinned.

        Raises:
            TierFull: when what stays leaves no room.
        """
        known = self._entries.get(version_id)
        bytes_after = self._bytes + besides_bytes + size_bytes - (known.size_bytes if known else 0)
        count_after = len(self._entries) + (known is None)
        leaving: list[Entry] = []
        for entry in self._entries.values():
            if self._fits(bytes_after, count_after):
                break
            if entry.version_id not in {version_id, *keep} and self._is_loose(entry.version_id):
                leaving.append(entry)
                bytes_after -= entry.size_bytes
                count_after -= 1
        if not self._fits(bytes_after, count_after):
            raise TierFull(f"The engine's {self._name} has no room for the adapter: what it holds is in use.")
        return leaving

    def may_come_to_hold(self, version_id: str, size_bytes: int) -> bool:
        """Say whether there will be room for `version_id` once nothing is held any more; what is pinned stays."""
        pinned = [entry for name, entry in self._entries.items() if name in self._pinned and name != version_id]
        return self._fits(sum(entry.size_bytes for entry in pinned) + size_bytes, len(pinned) + 1)

    def adopt(self, entry: Entry) -> None:
        """Note what is here as just used, whether or not that is within the bounds."""
        self._drop(entry.version_id)
        self._entries[entry.version_id] = entry
        self._bytes += entry.size_bytes

    def touch(self, version_id: str) -> bool:
        """Mark `version_id` as just used; False when it is not here."""
        if version_id not in self._entries:
            return False
        self._entries.move_to_end(version_id)
        return True

    def remove(self, version_id: str) -> Entry | None:
        """Take `version_id` out and unpin it; None when it is not here.

        Raises:
            TierFull: when it is held.
        """
        if version_id in self._holds:
            raise TierFull(f"An adapter in the engine's {self._name} is in use and stays.")
        self._pinned.discard(version_id)
        return self._drop(version_id)

    def abandon(self, version_id: str) -> None:
        """Undo `make_room` for an adapter that did not arrive, even when somebody holds its place."""
        self._drop(version_id)

    def hold(self, version_id: str) -> None:
        """Keep `version_id` here, or where it is about to be, until as many calls of `let_go`."""
        self._holds[version_id] += 1

    def let_go(self, version_id: str) -> None:
        """Undo one `hold`."""
        if self._holds[version_id] < 1:
            raise ValueError(f"{version_id} is not held")
        self._holds[version_id] -= 1
        if not self._holds[version_id]:
            del self._holds[version_id]

    def pin(self, version_id: str) -> None:
        """Keep `version_id` here until `unpin`.

        Raises:
            PinsFull: when as many are pinned as may be.
        """
        if version_id not in self._pinned and len(self._pinned) >= self._max_pinned:
            raise PinsFull(f"The engine's {self._name} has {self._max_pinned} pinned adapters already.")
        self._pinned.add(version_id)

    def unpin(self, version_id: str) -> None:
        """Let `version_id` be evicted again."""
        self._pinned.discard(version_id)

    def restore(self, entries: Iterable[Entry]) -> list[Entry]:
        """Take over what an earlier process left, the least recently used first; returns what does not fit."""
        leaving: list[Entry] = []
        for entry in entries:
            if entry.size_bytes > self._max_bytes:
                leaving.append(entry)
            else:
                leaving += self.make_room(entry.version_id, entry.size_bytes)
        return leaving

    def _is_loose(self, version_id: str) -> bool:
        return version_id not in self._pinned and version_id not in self._holds

    def _fits(self, size_bytes: int, count: int) -> bool:
        return size_bytes <= self._max_bytes and (self._max_entries is None or count <= self._max_entries)

    def _drop(self, version_id: str) -> Entry | None:
        entry = self._entries.pop(version_id, None)
        if entry is not None:
            self._bytes -= entry.size_bytes
        return entry
