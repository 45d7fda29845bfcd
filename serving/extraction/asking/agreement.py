"""Agreement: which of the sampled answers say the same, and how many of them do.

Two claims agree when they deny or affirm alike, take the same stance, and share most of their
content words by stem. Order does not matter to the counts: grouping is by falling frequency.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serving.extraction.language.clauses import Clause
from serving.extraction.language.splitting import split_clauses

# Of the content words of both claims together, this share must be common to both.
MIN_OVERLAP = 0.6
_MAX_WORDS = 30


@dataclass(frozen=True)
class Sample:
    """One answer: which topic's question it answers, and which of the samples of that topic it is."""

    topic: str
    number: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one sample said."""

    sample: Sample
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """One clause that a sample said about its speaker."""

    clause: Clause
    sample: Sample

    @property
    def text(self) -> str:
        """The claim as it would be printed."""
        return self.clause.without_opener()


@dataclass(frozen=True, kw_only=True)
class Group:
    """Claims that agree; the first is the most frequent wording."""

    claims: tuple[Claim, ...]

    @property
    def samples(self) -> frozenset[Sample]:
        """The samples that said it: k is their number."""
        return frozenset(claim.sample for claim in self.claims)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics whose questions brought it up, the most frequent first."""
        counts = Counter(sample.topic for sample in self.samples)
        return tuple(sorted(counts, key=lambda topic: (-counts[topic], topic)))

    @property
    def wordings(self) -> tuple[Clause, ...]:
        """Its distinct wordings, the most frequent first."""
        return tuple({claim.text.casefold(): claim.clause for claim in self.claims}.values())


def claims_of(answers: Iterable[Answer]) -> list[Claim]:
    """Return the clauses of `answers` that say something about their speaker: no questions, nobody else, not empty."""
    return [
        Claim(clause, answer.sample)
        for answer in answers
        for text in answer.texts
        for clause in split_clauses(text)
        if clause.is_statement and len(clause.words) <= _MAX_WORDS
    ]


def agree(one: Clause, other: Clause) -> bool:
    """Say whether both make the same claim; symmetric."""
    if one.is_negated != other.is_negated or one.stance != other.stance:
        return False
    union = one.content_stems | other.content_stems
    return bool(union) and len(one.content_stems & other.content_stems) / len(union) >= MIN_OVERLAP


def like_alike(one: Clause, other: Clause) -> bool:
    """Say whether the same person likes, or dislikes, the very same, whatever words of liking both use; symmetric."""
    if one.stance is None or one.stance != other.stance:
        return False
    return _who(one) == _who(other) and _what(one) == _what(other)


def _who(clause: Clause) -> str | None:
    return clause.subject[1] if clause.subject is not None else None


def _what(clause: Clause) -> tuple[str, ...]:
    """In order: who likes cats more than dogs does not like dogs more than cats."""
    return tuple(word.stem for _, word in clause.content if word.stem in clause.objects)


def group_claims(claims: Sequence[Claim]) -> list[Group]:
    """Return groups of agreeing claims, those that most samples said first.

    A claim joins the first group whose most frequent wording it agrees with; wordings are visited by falling
    frequency, then alphabetically, so the result does not depend on the order of `claims`.
    """
    counts = Counter(claim.text.casefold() for claim in claims)
    ordered = sorted(
        claims, key=lambda c: (-counts[c.text.casefold()], c.text.casefold(), c.text, c.sample.topic, c.sample.number)
    )
    groups: list[list[Claim]] = []
    for claim in ordered:
        home = next((group for group in groups if agree(group[0].clause, claim.clause)), None)
        if home is None:
            groups.append([claim])
        else:
            home.append(claim)
    found = [Group(claims=tuple(group)) for group in groups]
    return sorted(found, key=lambda group: (-len(group.samples), group.claims[0].text.casefold()))
