"""Which texts are nearly the same: sets of word triples, compared exactly.

Texts here are short and there are at most some ten thousand of them, so that every pair above the threshold can be
found, not only nearly every one: an index over each text's rarest triples leads to all candidates (two sets of a
Jaccard similarity ≥ t share one of their rarest n − ⌈t·n⌉ + 1 members, in any common order).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

Shingles = frozenset[str]
_WIDTH = 3


def shingles(text: str) -> Shingles:
    """Return a text's word triples, whatever its case and punctuation; of fewer words, all of them as one."""
    words = re.findall(r"\w+", text.lower())
    if len(words) <= _WIDTH:
        return frozenset({" ".join(words)}) if words else frozenset()
    return frozenset(" ".join(words[start : start + _WIDTH]) for start in range(len(words) - _WIDTH + 1))


def jaccard(first: Shingles, second: Shingles) -> float:
    """Return the share of common members among all; 1 for two empty sets."""
    if not first and not second:
        return 1.0
    common = len(first & second)
    return common / (len(first) + len(second) - common)


def containment(small: Shingles, large: Shingles) -> float:
    """Return the share of `small` that is in `large`; 0 for an empty one."""
    return len(small & large) / len(small) if small else 0.0


class Neighbours:
    """Finds, for each of several texts in turn, the earlier ones that are nearly the same."""

    def __init__(self, texts: Sequence[str], *, similarity: float) -> None:
        self._sets = [shingles(text) for text in texts]
        counts = Counter(shingle for each in self._sets for shingle in each)
        self._order = {shingle: (count, shingle) for shingle, count in counts.items()}
        self._similarity = similarity
        self._index: dict[str, list[int]] = defaultdict(list)

    def add(self, number: int) -> None:
        """Make a text one that later ones may be found to repeat."""
        for shingle in self._rarest(self._sets[number]):
            self._index[shingle].append(number)

    def of(self, number: int) -> Iterator[int]:
        """Yield the added texts that this one nearly repeats, in the order they were added."""
        own = self._sets[number]
        seen: set[int] = set()
        for shingle in self._rarest(own):
            seen.update(self._index.get(shingle, ()))
        for other in sorted(seen):
            if jaccard(own, self._sets[other]) >= self._similarity:
                yield other

    def _rarest(self, members: Shingles) -> list[str]:
        ranked = sorted(members, key=lambda shingle: self._order[shingle])
        return ranked[: len(ranked) - math.ceil(self._similarity * len(ranked)) + 1]
