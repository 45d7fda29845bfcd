"""What keys an adapter's blocks in vLLM's prefix cache: its name, and a path that nobody reads.

A block that must not be used again (its adapter was erased, or a step computed it without the weights) cannot be taken
out of the cache; under another path it is never found, and is overwritten as the cache needs room.
"""

from __future__ import annotations

_REMEMBERED = 4096


class CachePaths:
    """A path for every version, which `renew` changes for good; the memory of that is bounded."""

    def __init__(self, *, remembered: int = _REMEMBERED) -> None:
        self._remembered = remembered
        self._numbers: dict[str, int] = {}
        self._last = 0
        self._oldest = 0  # what every version has that is not remembered

    def of(self, version_id: str, path: str) -> str:
        """Return the version's path now."""
        number = self._numbers.get(version_id, self._oldest)
        return f"{path}#{number}" if number else path

    def renew(self, version_id: str) -> None:
        """Give the version a path that it never had."""
        self._last += 1
        if version_id not in self._numbers and len(self._numbers) >= self._remembered:
            self._numbers.clear()  # rather than lose one: everything gets another path
            self._oldest = self._last
            self._last += 1
        self._numbers[version_id] = self._last
