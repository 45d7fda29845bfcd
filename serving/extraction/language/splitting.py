"""A turn's text as clauses, each knowing whether what stands around it limits it.

A clause is split off only where another subject follows, so that conditions and exceptions (``if …``, ``but not …``)
stay with what they limit. Everything takes time linear in the text, whatever it holds.
"""

from __future__ import annotations

import re
from dataclasses import replace

from serving.extraction.language.clauses import Clause, is_verb
from serving.extraction.language.limits import limited_clauses
from serving.extraction.language.words import Word, read_words

# Of a longer turn only the beginning is read, as only the beginning can be found.
MOST_CHARACTERS = 65_536

# No run of blanks is tried from its middle (the lookbehinds), which would take time quadratic in its length.
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\s\"')\]]++|[\n\r;]++|(?<=[.!?…])(?=[A-Z])")
_SUBJECTS = (
    r"i|i['’]m|i['’]ve|i['’]d|i['’]ll|im|ive|my|we|he|she|they|you|it|it['’]s|this|that|there|our|what|how|do|are"
)
_CLAUSE_END = re.compile(
    rf"(?<!\s)\s*+[,:—–]\s++(?=(?:(?:and|but|so|or|because|though)\s++)?(?:{_SUBJECTS})\b)"
    rf"|(?<!\s)\s++[-–—~]++\s++|(?<!\s)\s++(?=(?:and|but|so|because|though|although)\s++(?:{_SUBJECTS})\b)",
    re.IGNORECASE,
)


def split_clauses(text: str) -> list[Clause]:
    """Return the clauses of `text` in order; of a very long text, those of its beginning."""
    clauses: list[Clause] = []
    pieces = _SENTENCE_END.split(text[:MOST_CHARACTERS])
    if len(text) > MOST_CHARACTERS:
        pieces.pop()  # what is cut off may turn its meaning round
    sentences = [sentence for piece in pieces if (sentence := piece.strip())]
    for index, sentence in enumerate(sentences):
        parts = _split_sentence(sentence)
        following = sentences[index + 1] if index + 1 < len(sentences) else ""
        found = [
            Clause(part, sentence, ends_sentence=number == len(parts)) for number, part in enumerate(parts, start=1)
        ]
        limited = limited_clauses(parts, sentence=sentence, following=following)
        clauses += [replace(c, is_limited=True) if n in limited else c for n, c in enumerate(found)]
    return clauses


def _split_sentence(sentence: str) -> list[str]:
    """Cut a sentence into clauses; ``my wife and I are …`` is not cut before ``and``, as ``my wife`` says nothing."""
    parts: list[str] = []
    begin, head = 0, _Head()
    for boundary in _CLAUSE_END.finditer(sentence):
        head.read(sentence[head.end : boundary.start()], end=boundary.end())
        if boundary[0].strip() or head.has_verb:
            parts.append(sentence[begin : boundary.start()])
            begin, head = boundary.end(), _Head(end=boundary.end())
    return [stripped for part in (*parts, sentence[begin:]) if (stripped := part.strip())]


class _Head:
    """What stands before a boundary, read piece by piece: whether it has a verb is asked at every boundary."""

    def __init__(self, *, end: int = 0) -> None:
        self.end = end
        self.has_verb = False
        self._first: list[Word] = []

    def read(self, piece: str, *, end: int) -> None:
        """Read on: `piece` stands between what was read and the boundary that ends at `end`."""
        self.end = end
        for word in read_words(piece):
            if len(self._first) < 2:
                self._first.append(word)
                if len(self._first) == 1:
                    continue
                self.has_verb = self._first[0].text in {"i", "we"} and word.text not in {"and", "or"}
            self.has_verb = self.has_verb or is_verb(word)
