"""One clause: what it claims, of whom, in which polarity, tense and mood."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from serving.extraction.language.lexicon import (
    AUXILIARIES,
    DISLIKES,
    FIRST_PERSON,
    LIGHT,
    LIKES,
    LIKING_NOUNS,
    MARKERS,
    NEGATIONS,
    OPENERS,
    OTHERS,
    PLAIN,
    POINTERS,
    QUESTION_WORDS,
    VERBS,
)
from serving.extraction.language.words import Word, read_words, stem

Stance = Literal["likes", "dislikes"]

_LEADING = re.compile(rf"^(?:(?:{'|'.join(sorted(OPENERS))})\b[\s,.!…-]*+)++", re.IGNORECASE)
_NO_BEGINNING = " \t)]}>.,;:!?*-–—…"
_LIKES_STEMS = frozenset(map(stem, LIKES))
_LIKING_NOUN_STEMS = frozenset(map(stem, LIKING_NOUNS))
_DISLIKES_STEMS = frozenset(map(stem, DISLIKES))
_LIGHT_STEMS = frozenset(map(stem, LIGHT))
_VERB_STEMS = frozenset(map(stem, VERBS))
_OPINIONS = frozenset({"think", "thought", "guess", "believe", "feel", "find", "hope", "know", "say", "suppose"})
_BARE = frozenset({"it", "that", "this", "these", "those", "they", "he", "she"})
_IS = frozenset({"is", "was", "are", "were"})
_NO_MORE = frozenset({"liked", "loved", "enjoyed", "adored", "hated", "disliked", "despised", "loathed", "detested"})
_UNREAL = frozenset({"modal", "condition", "doubt", "future"})


@dataclass(frozen=True)
class Clause:
    """One clause: `text` is a substring of what was written, `sentence` the sentence around it.

    `is_limited` says that what stands around it in the turn limits it or takes it back.
    """

    text: str
    sentence: str
    ends_sentence: bool = True
    is_limited: bool = False

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

    @cached_property
    def objects(self) -> frozenset[str]:
        """The stems of its content words without those that like or dislike."""
        return self.content_stems - _LIKES_STEMS - _DISLIKES_STEMS - {"stand"}

    @cached_property
    def core(self) -> frozenset[str]:
        """What it is about, whatever verb says so; `objects` when there is nothing but verbs."""
        return (self.objects - _LIGHT_STEMS - _VERB_STEMS) or self.objects

    @property
    def topic_text(self) -> str:
        """The words that whoever denies or takes back the claim uses too: its objects, or all that it has."""
        of_objects = self.objects or self.content_stems
        return " ".join(word.text for _, word in self.content if word.stem in of_objects)

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

    @property
    def is_real(self) -> bool:
        """Whether it says what is or was, rather than what may be, would be, will be or is doubted."""
        return not self.markers & _UNREAL

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

    @cached_property
    def is_statement(self) -> bool:
        """Whether it says something of substance about its speaker that could stand alone.

        ``I love it``, ``I live next to her`` and ``I think that is important`` say it of something that only their
        context names.
        """
        if self.is_limited or self.subject is None or self.is_question or not has_verb(self.words[self.subject[0] :]):
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
        """Whether it says that its speaker likes or dislikes something, now and in earnest, negation considered.

        ``My brother likes football`` tells no liking of its speaker's; ``my favorite sport is football`` does.
        """
        stems = {word.stem for word in self.words}
        texts = [word.text for word in self.words]
        if not self.is_real or "past" in self.markers or _NO_MORE.intersection(texts):
            return None
        if self.subject is not None and self.subject[1] == "my":
            return "likes" if stems & _LIKING_NOUN_STEMS and not self.is_negated else None
        if "stand" in texts and self.is_negated:
            return "dislikes"
        if stems & _DISLIKES_STEMS:
            return None if self.is_negated else "dislikes"
        if stems & _LIKES_STEMS and not self._likes_is_no_verb(texts):
            return "dislikes" if self.is_negated else "likes"
        return None

    @property
    def is_former_liking(self) -> bool:
        """Whether it says what its speaker liked or disliked once, which says nothing of now."""
        stems = {word.stem for word in self.words}
        return "past" in self.markers and bool(stems & (_LIKES_STEMS | _DISLIKES_STEMS))

    def _likes_is_no_verb(self, texts: list[str]) -> bool:
        """``I feel like``, ``looks like``, ``would like to`` and ``like`` as a filler tell no liking."""
        if {word.stem for word in self.words} & (_LIKES_STEMS - {"like"}):
            return False
        places = [index for index, text in enumerate(texts) if text in {"like", "likes", "liked", "liking"}]
        return not any(index > 0 and _may_like(texts[index - 1]) for index in places)

    def without_opener(self) -> str:
        """Return the text without ``well,`` and half a smiley at its beginning, and without what ends a sentence."""
        return _LEADING.sub("", self.text.lstrip(_NO_BEGINNING)).strip().rstrip(".,;:! ")


def _may_like(text: str) -> bool:
    return text in {"i", "we", "not"} or Word(text).is_insignificant


def has_verb(words: tuple[Word, ...]) -> bool:
    """Say whether there is a verb after the first word, as far as one can tell without a dictionary."""
    if len(words) > 1 and words[0].text in {"i", "we"} and words[1].text not in {"and", "or"}:
        return True
    return any(is_verb(word) for word in words[1:])


def is_verb(word: Word) -> bool:
    """Say whether a word is a verb, as far as one can tell."""
    return word.stem in _VERB_STEMS or word.text in AUXILIARIES or word.is_past
