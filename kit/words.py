"""Words for people, where a program would say ``1 transcripts``."""

from __future__ import annotations

from collections.abc import Mapping


def counted(number: int, thing: str) -> str:
    """Return ``1 transcript`` or ``3 transcripts``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def tallied(counts: Mapping[str, int]) -> str:
    """Return ``tea 2, milk 1``, or ``none``."""
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
