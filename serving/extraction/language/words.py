"""Words of a short chat message: lower-case, contractions spelled out, with their stems.

English only, and on purpose simple. Stems are Snowball's (Porter 2). Everything here takes time linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import snowballstemmer

from serving.extraction.language.lexicon import (
    ENDINGS,
    FUNCTION,
    INSIGNIFICANT,
    MERGED,
    NEGATIONS,
    PAST_FORMS,
    SPELLED_OUT,
)

# Of a longer word only the beginning counts: nobody's trait is in the rest, and the stemmer's memory is not for it.
_LONGEST_WORD = 48
_WORD = re.compile(r"[^\W_]++(?:['’][^\W_]++)*+", re.UNICODE)
_stemmer = snowballstemmer.stemmer("english")


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Return a lower-case word's stem; an irregular past form has its verb's."""
    return str(_stemmer.stemWord(PAST_FORMS.get(word, word)))


@dataclass(frozen=True)
class Word:
    """One word, lower-case and spelled out (``don't`` is two: ``do``, ``not``)."""

    text: str

    @property
    def stem(self) -> str:
        """Its stem."""
        return stem(self.text)

    @property
    def is_content(self) -> bool:
        """Whether it says what the sentence is about, rather than holding it together."""
        return self.text not in FUNCTION and self.text not in NEGATIONS

    @property
    def is_insignificant(self) -> bool:
        """Whether leaving it out changes the degree or the style only."""
        return self.text in INSIGNIFICANT

    @property
    def key(self) -> str:
        """What two forms of one word have in common, in one tense."""
        if not self.is_content:
            return MERGED.get(self.text, self.text)
        return f"{self.stem} (past)" if self.is_past else self.stem

    @property
    def is_past(self) -> bool:
        """Whether it looks like a past form."""
        return self.text in PAST_FORMS or (self.text.endswith("ed") and len(self.text) > 4)


def read_words(text: str) -> Iterator[Word]:
    """Yield the words of `text`, contractions spelled out, a possessive's ``'s`` as a word of its own."""
    for found in _WORD.finditer(text):
        raw = found[0][:_LONGEST_WORD].lower().replace("’", "'")
        for part in SPELLED_OUT.get(raw, raw).split():
            yield from _split_contraction(part)


def _split_contraction(word: str) -> Iterator[Word]:
    if word in {"id", "ill"} or "'" not in word:
        yield Word(word)
        return
    for ending, full in ENDINGS:
        if word.endswith(ending):
            yield Word(word.removesuffix(ending))
            yield Word(full)
            return
    head, _, tail = word.partition("'")
    yield Word(head)
    yield Word(f"'{tail}")
