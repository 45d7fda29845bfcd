"""What an operator adds: names, and kinds with patterns of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import regex

from transcripts.errors import RedactionTooSlow
from transcripts.redaction.finding import Finding

_SECONDS_A_TEXT = 2.0


class NameDetector:
    """Finds listed names as whole words, whatever their case."""

    def __init__(self, names: Sequence[str]) -> None:
        # A named list is looked up by its first characters: thousands of names cost what one does.
        self._pattern = regex.compile(
            r"\b(?:\L<names>)\b",
            regex.IGNORECASE | regex.FULLCASE,
            names=sorted(set(names), key=lambda n: (-len(n), n)),
        )

    def __call__(self, text: str) -> Iterator[Finding]:
        """Yield where the names stand."""
        for match in self._pattern.finditer(text):
            yield Finding(kind="name", start=match.start(), end=match.end())


class PatternDetector:
    """Finds the matches of an operator's patterns, each within a bounded time."""

    def __init__(self, patterns: Mapping[str, str]) -> None:
        self._patterns = [(kind, regex.compile(pattern)) for kind, pattern in sorted(patterns.items())]

    def __call__(self, text: str) -> Iterator[Finding]:
        """Yield the matches that are not empty.

        Raises:
            RedactionTooSlow: naming the kind, when a pattern takes over 2 seconds on one text: nothing may pass
                unchecked.
        """
        for kind, pattern in self._patterns:
            try:
                spans = [match.span() for match in pattern.finditer(text, timeout=_SECONDS_A_TEXT)]
            except TimeoutError as exc:
                raise RedactionTooSlow(
                    f"the pattern for {kind!r} took over {_SECONDS_A_TEXT:g} s on a text of {len(text)} characters",
                    field=f"redaction.patterns.{kind}",
                ) from exc
            for start, end in spans:
                if end > start:
                    yield Finding(kind=kind, start=start, end=end)


class ValueDetector:
    """Finds again, anywhere, the secrets that were found once beside a word that gave them away."""

    def __init__(self, values: frozenset[str]) -> None:
        self._pattern = regex.compile(r"\L<values>", values=sorted(values, key=lambda v: (-len(v), v)))

    def __call__(self, text: str) -> Iterator[Finding]:
        """Yield where the values stand."""
        for match in self._pattern.finditer(text):
            yield Finding(kind="secret/repeated", start=match.start(), end=match.end())
