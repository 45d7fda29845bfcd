"""A place in a text that must not be passed on, and what finds such places."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Characters `start` to `end` (exclusive) of a text are of this `kind`. The value itself is never held.

    A kind is one word (``email``), or a family and a member (``secret/github-token``): counts tell members
    apart, placeholders only families.
    """

    kind: str
    start: int
    end: int

    @property
    def family(self) -> str:
        """What the placeholder says."""
        return self.kind.partition("/")[0]


VAGUE = frozenset({"secret/random-string", "secret/repeated"})
"""Kinds that say less than any other that is found in the same place."""

Detector = Callable[[str], Iterable[Finding]]
"""Yields every finding in a text, in any order; they may overlap. Takes time linear in the text's length."""


def merge(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in order of place in which overlapping ones are one, of the kind of the longest."""
    merged: list[Finding] = []
    longest = 0
    for found in sorted(findings, key=lambda one: (one.start, -one.end, one.kind in VAGUE, one.kind)):
        if merged and found.start < merged[-1].end:
            last = merged[-1]
            kind = found.kind if found.end - found.start > longest else last.kind
            longest = max(longest, found.end - found.start)
            merged[-1] = Finding(kind=kind, start=last.start, end=max(last.end, found.end))
        else:
            merged.append(found)
            longest = found.end - found.start
    return merged


def windows(text: str, *, size: int) -> Iterator[tuple[int, str]]:
    """Yield (offset, piece) for each line; a line longer than `size` in pieces that overlap by half.

    A pattern that takes time quadratic in the length of a piece takes time linear in the text's, and a match of up
    to half the size is whole in one of the pieces.
    """
    for line in re.finditer(r"[^\n]+", text):
        start, end = line.span()
        while end - start > size:
            yield start, text[start : start + size]
            start += size // 2
        yield start, text[start:end]
