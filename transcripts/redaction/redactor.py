"""Redaction: what a detector finds is replaced by ``[redacted <kind>]``.

Laws:

- no detector finds anything in a redacted text, outside placeholders;
- redacting twice is redacting once;
- equal transcripts and settings give equal results; a placeholder says the kind and nothing else, so that
  it is the same whatever else is redacted with it, and links nobody across texts;
- time grows linearly with the text's length, whatever the text;
- counts and findings hold kinds and places, never values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kit.canonical import sha256_json
from transcripts.redaction.credentials import CredentialDetector
from transcripts.redaction.finding import Detector, Finding, merge
from transcripts.redaction.identifiers import (
    PhoneDetector,
    find_cards,
    find_emails,
    find_ibans,
    find_ips,
    find_social_security_numbers,
)
from transcripts.redaction.own import NameDetector, PatternDetector, ValueDetector
from transcripts.redaction.plugins import PluginDetector
from transcripts.redaction.settings import KINDS, RedactionSettings
from transcripts.transcript import Transcript

RULES_VERSION = 3
"""Raised when the same settings come to find something else; part of a dataset's lineage."""

_MIN_REPEATED = 6
_MIN_REPEATED_WORD = 12


@dataclass(frozen=True, kw_only=True)
class RedactedText:
    """A text without what was found in it, and how often what kind was."""

    text: str
    counts: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class RedactedTexts:
    """Texts in the order given, without what was found in them, and how often what kind was in all of them."""

    texts: tuple[str, ...]
    counts: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Redacted:
    """Redacted transcripts in the order given.

    `source_ids` are the ids that the transcripts had before, in the same order: a transcript's id is the digest of its
    turns, so redaction changes it. `counts` says how often what kind was replaced, by sorted kind.
    """

    transcripts: tuple[Transcript, ...]
    source_ids: tuple[str, ...]
    counts: dict[str, int]


class Redactor:
    """Takes out what its settings name. Holds nothing of what it saw; may be used from several threads."""

    def __init__(self, settings: RedactionSettings | None = None) -> None:
        self.settings = settings or RedactionSettings()
        self._detectors = tuple(_detectors(self.settings))
        kinds = "|".join(map(re.escape, (*KINDS, *sorted(self.settings.patterns))))
        self._placeholder = re.compile(rf"(\[redacted (?:{kinds})\])")

    def redact(self, transcripts: Iterable[Transcript]) -> Redacted:
        """Return the transcripts with turns and titles redacted.

        A password found once beside a word that gives it away is also taken out where it stands alone, in all of
        `transcripts`.

        Raises:
            RedactionTooSlow: when a pattern of the settings takes too long; nothing is returned then.
        """
        given = list(transcripts)
        work = _Work(self._detectors, self._placeholder)
        cleaned = iter(work.clean_all(_texts(given)))
        redacted = []
        for one in given:
            title = next(cleaned)
            turns = tuple(replace(turn, text=next(cleaned)) for turn in one.turns)
            redacted.append(replace(one, title=title, turns=turns))
        return Redacted(
            transcripts=tuple(redacted),
            source_ids=tuple(one.id for one in given),
            counts=dict(sorted(work.counts.items())),
        )

    def redact_text(self, text: str) -> RedactedText:
        """Return one text redacted, as `redact` would if it were all there is."""
        found = self.redact_texts([text])
        return RedactedText(text=found.texts[0], counts=found.counts)

    def redact_texts(self, texts: Iterable[str], *, beside: Iterable[Transcript] = ()) -> RedactedTexts:
        """Return texts redacted that come after transcripts: the secrets of these are taken out of them, too.

        Raises:
            RedactionTooSlow: see `redact`.
        """
        work = _Work(self._detectors, self._placeholder)
        work.clean_all(_texts(beside))
        work.counts.clear()
        cleaned = tuple(work.clean_all(list(texts)))
        return RedactedTexts(texts=cleaned, counts=dict(sorted(work.counts.items())))

    def find(self, text: str) -> tuple[Finding, ...]:
        """Return what would be replaced first, in order of place, without overlaps; nothing inside placeholders."""
        return tuple(
            replace(found, start=offset + found.start, end=offset + found.end)
            for offset, part in _outside(text, self._placeholder)
            for found in _findings(part, self._detectors)
        )

    def record(self) -> dict[str, Any]:
        """Return what a dataset's lineage says of its redaction; no name and no pattern is in it."""
        return {"rules_version": RULES_VERSION, **self.settings.record()}

    @property
    def digest(self) -> str:
        """SHA-256 of the record: equal where equal texts are redacted alike."""
        return sha256_json(self.record())


def _texts(transcripts: Iterable[Transcript]) -> list[str]:
    return [text for one in transcripts for text in (one.title, *(turn.text for turn in one.turns))]


class _Work:
    """One redaction: what was counted, and the secrets to look for everywhere, which are forgotten with it."""

    def __init__(self, detectors: tuple[Detector, ...], placeholder: re.Pattern[str]) -> None:
        self._detectors = detectors
        self._placeholder = placeholder
        self._values: set[str] = set()
        self.counts: Counter[str] = Counter()

    def clean_all(self, texts: list[str]) -> list[str]:
        """Return the texts without findings, and without the secrets that were found in any of them."""
        texts = [self._clean(text, self._detectors) for text in texts]
        known: frozenset[str] = frozenset()
        while self._values > known:  # a text only gets shorter by what is found, so this ends
            known = frozenset(self._values)
            repeated = ValueDetector(known)
            texts = [self._clean(text, (repeated, *self._detectors)) if any(repeated(text)) else text for text in texts]
        return texts

    def _clean(self, text: str, detectors: tuple[Detector, ...]) -> str:
        done: list[str] = []
        todo = [text]
        while todo:
            part = todo.pop()
            pieces = [piece for piece in self._placeholder.split(part) if piece]
            if len(pieces) > 1:
                todo.extend(reversed(pieces))
            elif self._placeholder.fullmatch(part) or not (found := _findings(part, detectors)):
                done.append(part)
            else:
                todo.extend(reversed(self._replace(part, found)))
        return "".join(done)

    def _replace(self, part: str, findings: list[Finding]) -> list[str]:
        """Return the text in pieces: placeholders, and what stands between them, which may hold more."""
        pieces, at = list[str](), 0
        for found in findings:
            self._note(found, part[found.start : found.end])
            pieces += [part[at : found.start], f"[redacted {found.family}]"]
            at = found.end
        return [*pieces, part[at:]]

    def _note(self, found: Finding, value: str) -> None:
        self.counts[found.kind] += 1
        if found.family == "secret" and _is_telling(value):
            self._values.add(value)


def _is_telling(value: str) -> bool:
    """Whether a value means the secret wherever it stands, and is no word of everybody's."""
    if len(value) < _MIN_REPEATED or "\n" in value:
        return False
    return len(value) >= _MIN_REPEATED_WORD or not value.isalpha()


def _findings(part: str, detectors: tuple[Detector, ...]) -> list[Finding]:
    return merge(found for detector in detectors for found in detector(part))


def _outside(text: str, placeholder: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Yield what stands between placeholders, with its offset; also where that is nothing."""
    at = 0
    for match in placeholder.finditer(text):
        yield at, text[at : match.start()]
        at = match.end()
    yield at, text[at:]


def _detectors(settings: RedactionSettings) -> Iterator[Detector]:
    if settings.secrets:
        yield PluginDetector(skip=settings.skip_plugins)
        yield CredentialDetector()
    if settings.email:
        yield find_emails
    if settings.phone:
        yield PhoneDetector(settings.phone_regions)
    if settings.iban:
        yield find_ibans
    if settings.card:
        yield find_cards
    if settings.ssn:
        yield find_social_security_numbers
    if settings.ip:
        yield find_ips
    if settings.names:
        yield NameDetector(settings.names)
    if settings.patterns:
        yield PatternDetector(settings.patterns)
