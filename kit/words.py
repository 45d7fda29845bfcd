"""Words for people, where a program would say ``1 transcripts``."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """Return ``1 transcript`` or ``3 transcripts``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
