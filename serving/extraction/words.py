"""Reading a short chat message without a model: clauses, word stems, negation, tense, who speaks.

English only, on purpose simple, and careful: what it cannot read it leaves whole, so that the
checks built on it refuse rather than guess. Stems are Snowball's (Porter 2).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import snowballstemmer

from serving.extraction.lexicon import (
    AUXILIARIES,
    DISLIKES,
    ENDINGS,
    FIRST_PERSON,
    FUNCTION,
    INSIGNIFICANT,
    LIGHT,
    LIKES,
    MARKERS,
    MERGED,
    NEGATIONS,
    OPENERS,
    OTHERS,
    PAST_FORMS,
    PLAIN,
    POINTERS,
    QUESTION_WORDS,
    SPELLED_OUT,
    VERBS,
)

Stance = Literal["likes", "dislikes"]

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*", re.UNICODE)
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\s\"')\]]+|[\n\r;]+|(?<=[.!?…])(?=[A-Z])")
_SUBJECTS = (
    r"i|i['’]m|i['’]ve|i['’]d|i['’]ll|im|ive|my|we|he|she|they|you|it|it['’]s|this|that|there|our|what|how|do|are"
)
_CLAUSE_END = re.compile(
    rf"\s*[,:—–]\s+(?=(?:(?:and|but|so|or|because|though)\s+)?(?:{_SUBJECTS})\b)"
    rf"|\s+-+\s+|\s+(?=(?:and|but|so|because|though|although)\s+(?:{_SUBJECTS})\b)",
    re.IGNORECASE,
)
_LEADING = re.compile(rf"^(?:(?:{'|'.join(sorted(OPENERS))})\b[\s,.!…-]*)+", re.IGNORECASE)
_stemmer = snowballstemmer.stemmer("english")


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Return a lower-case word's stem; an irregular past form has its verb's."""
    return str(_stemmer.stemWord(PAST_FORMS.get(word, word)))


_LIKES_STEMS = frozenset(map(stem, LIKES))
_DISLIKES_STEMS = frozenset(map(stem, DISLIKES))
_LIGHT_STEMS = frozenset(map(stem, LIGHT))
_VERB_STEMS = frozenset(map(stem, VERBS))
_OPINIONS = frozenset({"think", "thought", "guess", "believe", "feel", "find", "hope", "know", "say", "suppose"})
_BARE = frozenset({"it", "that", "this", "these", "those", "they", "he", "she"})
_IS = frozenset({"is", "was", "are", "were"})


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


@dataclass(frozen=True)
class Clause:
    """One clause: `text` is a substring of what was written, `sentence` the sentence around it."""

    text: str
    sentence: str
    ends_sentence: bool = True

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """Its words in order."""
        return tuple(read_words(self.text))

    @cached_property
    def content(self) -> tuple[tuple[int, Word], ...]:
        """Its content words with their positions."""
        return tuple((index, word) for index, word in enumerate(self.words) if word.is_content)

    @cached_property
    def content_stems(self) -> frozenset[str]:
        """The stems of its content words."""
        return frozenset(word.stem for _, word in self.content)

    @property
    def objects(self) -> frozenset[str]:
        """The stems of its content words without those that like or dislike."""
        return self.content_stems - _LIKES_STEMS - _DISLIKES_STEMS - {"stand"}

    @property
    def emphasis(self) -> frozenset[str]:
        """The words that strengthen or colour it: ``really``, ``absolutely``."""
        return frozenset(word.text for word in self.words if word.is_insignificant) - PLAIN

    @cached_property
    def is_negated(self) -> bool:
        """Whether it holds a word that denies something."""
        return any(word.text in NEGATIONS for word in self.words)

    @cached_property
    def markers(self) -> frozenset[str]:
        """What is done to its claim: ``past``, ``future``, ``modal``, ``condition``, ``doubt``."""
        found = {MARKERS[word.text] for word in self.words if word.text in MARKERS}
        pairs = itertools.pairwise(self.words)
        return frozenset(found | {"future" for a, b in pairs if (a.text, b.text) == ("going", "to")})

    @cached_property
    def is_question(self) -> bool:
        """Whether it asks: by its mark, or by how it begins."""
        asks = self.ends_sentence and "?" in self.text[-4:]
        return asks or self._begins_like_a_question

    @property
    def _begins_like_a_question(self) -> bool:
        texts = [word.text for word in self.words if word.text not in OPENERS][:3]
        if not texts:
            return False
        inverted = len(texts) > 1 and texts[0] in AUXILIARIES and (texts[1] in OTHERS or texts[1] in FIRST_PERSON)
        return texts[0] in QUESTION_WORDS or inverted

    @cached_property
    def subject(self) -> tuple[int, str] | None:
        """The first word if it is the speaker (``i``, ``my``, ``we``, ``our``), its position; openers are skipped."""
        for index, word in enumerate(self.words):
            if word.text in FIRST_PERSON:
                return index, FIRST_PERSON[word.text]
            if word.text not in OPENERS:
                return None
        return None

    @property
    def is_statement(self) -> bool:
        """Whether it says something of substance about its speaker that could stand alone.

        ``I love it``, ``I live next to her`` and ``I think that is important`` say it of something that only their
        context names.
        """
        if self.subject is None or self.is_question or not _has_verb(self.words[self.subject[0] :]):
            return False
        return bool(self.objects - _LIGHT_STEMS) and self.words[-1].text not in POINTERS and not self._judges_a_pointer

    @property
    def _judges_a_pointer(self) -> bool:
        """Whether it begins with an opinion on a bare pointer: ``I think that is``, ``I guess it was``."""
        start = self.subject[0] + 1 if self.subject else len(self.words)
        said = [word.text for word in self.words[start:] if not word.is_insignificant or word.text in _BARE | _IS][:3]
        return len(said) == 3 and said[0] in _OPINIONS and said[1] in _BARE and said[2] in _IS

    @cached_property
    def _claim_words(self) -> tuple[Word, ...]:
        start = self.subject[0] if self.subject else len(self.words)
        return tuple(word for word in self.words[start:] if not word.is_insignificant)

    @cached_property
    def claim(self) -> tuple[str, ...]:
        """What it says from its subject on, equal for ``I really love the dogs`` and ``I love a dog``."""
        return tuple(word.key for word in self._claim_words)

    @cached_property
    def claim_is_content(self) -> tuple[bool, ...]:
        """For each part of `claim`, whether it is a content word."""
        return tuple(word.is_content for word in self._claim_words)

    @cached_property
    def stance(self) -> Stance | None:
        """Whether it says that its speaker likes or dislikes something, negation considered."""
        stems = {word.stem for word in self.words}
        texts = [word.text for word in self.words]
        if "stand" in texts and self.is_negated:
            return "dislikes"
        if stems & _DISLIKES_STEMS:
            return None if self.is_negated else "dislikes"
        if stems & _LIKES_STEMS and not self._likes_is_no_verb(texts):
            return "dislikes" if self.is_negated else "likes"
        return None

    def _likes_is_no_verb(self, texts: list[str]) -> bool:
        """``I feel like``, ``looks like``, ``would like to`` and ``like`` as a filler tell no liking."""
        if {word.stem for word in self.words} & (_LIKES_STEMS - {"like"}):
            return False
        places = [index for index, text in enumerate(texts) if text in {"like", "likes", "liked", "liking"}]
        verbs = {"i", "we", "not", *INSIGNIFICANT}
        return not any(index > 0 and texts[index - 1] in verbs for index in places)

    def without_opener(self) -> str:
        """Return the text without ``well,`` and the like at its beginning, and without what ends a sentence."""
        return _LEADING.sub("", self.text).strip().rstrip(".,;:! ")


def read_words(text: str) -> Iterator[Word]:
    """Yield the words of `text`, contractions spelled out, a possessive's ``'s`` as a word of its own."""
    for raw in _WORD.findall(text.lower().replace("’", "'")):
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


def split_clauses(text: str) -> list[Clause]:
    """Return the clauses of `text` in order.

    A clause is split off only where another subject follows, so that conditions and exceptions
    (``if …``, ``but not …``) stay with what they limit.
    """
    clauses = []
    for sentence in _SENTENCE_END.split(text):
        parts = _split_sentence(sentence)
        for number, part in enumerate(parts, start=1):
            clauses.append(Clause(part, sentence.strip(), ends_sentence=number == len(parts)))
    return clauses


def _split_sentence(sentence: str) -> list[str]:
    """Cut a sentence into clauses; ``my wife and I are …`` is not cut before ``and``, as ``my wife`` says nothing."""
    parts = []
    begin = 0
    for boundary in _CLAUSE_END.finditer(sentence):
        head = sentence[begin : boundary.start()]
        if boundary[0].strip() or _has_verb(tuple(read_words(head))):
            parts.append(head)
            begin = boundary.end()
    return [stripped for part in (*parts, sentence[begin:]) if (stripped := part.strip())]


def _has_verb(words: tuple[Word, ...]) -> bool:
    """Say whether there is a verb after the first word, as far as one can tell without a dictionary."""
    if len(words) > 1 and words[0].text in {"i", "we"} and words[1].text not in {"and", "or"}:
        return True
    verbs = (word.stem in _VERB_STEMS or word.text in AUXILIARIES or word.is_past for word in words[1:])
    return any(verbs)
