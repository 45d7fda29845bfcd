"""A set of digests that takes 12 to 24 bytes for each: millions of messages are remembered in tens of megabytes."""

from __future__ import annotations

from array import array
from hashlib import blake2b

_FIRST_SLOTS = 1 << 10
_MAX_LOAD = 2 / 3


class Seen:
    """Remembers texts by 64 bits of their digest: among a million, two look alike once in 37 million imports."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * _FIRST_SLOTS))  # 0 = free
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, text: str) -> bool:
        """Remember a text; return whether it is new."""
        digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
        key = int.from_bytes(digest, "little") or 1
        slot = self._slot(key)
        if self._slots[slot] == key:
            return False
        self._slots[slot] = key
        self._count += 1
        if self._count > _MAX_LOAD * len(self._slots):
            self._grow()
        return True

    def _slot(self, key: int) -> int:
        """Return where the key is, or the free slot where it belongs."""
        slots, mask = self._slots, len(self._slots) - 1
        slot = key & mask
        while slots[slot] not in (0, key):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        old, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
        for key in old:
            if key:
                self._slots[self._slot(key)] = key
