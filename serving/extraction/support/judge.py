"""Support: whether one of the person's own turns backs a statement, contradicts it, or neither.

A turn supports a statement when one of its clauses, whose subject is the speaker, begins with the statement word
for word, but for articles, intensifiers and inflection within one tense; goes on with nothing that may limit it;
denies or affirms alike; and is not a question, a wish, a doubt, a condition, of another time, or taken back by what
stands around it. A clause that comes close but says it differently restates it: that clause may then stand as the
statement. Whatever is unclear is no support.

Laws: a clause that states something supports itself; if a turn supports a statement, the
statement has no content word that the turn lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from serving.extraction.language.clauses import Clause
from serving.extraction.language.splitting import split_clauses
from serving.extraction.language.voice import is_own_voice

Verdict = Literal["supports", "restates", "contradicts", "none"]

# A clause that shares this share of the statement's content words, and at least two of them, is about the same.
MIN_COVERAGE = 0.6
_MIN_SHARED = 2
_MAX_RESTATED_WORDS = 25
# What may follow a claim without limiting it; after anything else the person's whole clause is what they said.
_HARMLESS = frozenset(
    ("and", "you", "u", "your", "what", "how", "lol", "etc", "plus", "so", "btw", "yes", "yeah", "too")
)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a turn does to a statement, and the clause that does it (None for ``none``)."""

    verdict: Verdict
    clause: Clause | None = None


_NONE = Judgement(verdict="none")
_ORDER: tuple[Verdict, ...] = ("supports", "contradicts", "restates", "none")


def read_turn(turn_text: str) -> tuple[Clause, ...]:
    """Return the clauses of a turn that its writer may have meant; none when it is not their own voice."""
    return tuple(split_clauses(turn_text)) if is_own_voice(turn_text) else ()


def judge(statement: Clause, turn_text: str) -> Judgement:
    """Return the strongest of what the clauses of `turn_text` do to `statement`; support counts most.

    Args:
        statement: one clause with a first-person subject.
        turn_text: what the person wrote at once.
    """
    return judge_clauses(statement, read_turn(turn_text))


def judge_clauses(statement: Clause, clauses: Sequence[Clause]) -> Judgement:
    """Do what `judge` does with a turn that `read_turn` has read."""
    judgements = (_judge_clause(statement, clause) for clause in clauses)
    return min(judgements, key=lambda j: _ORDER.index(j.verdict), default=_NONE)


def _judge_clause(statement: Clause, clause: Clause) -> Judgement:
    if not statement.is_statement or clause.is_limited or clause.is_question or clause.subject is None:
        return _NONE
    if _contradicts(statement, clause):
        return Judgement(verdict="contradicts", clause=clause)
    if not _claims_alike(statement, clause):
        return _NONE
    if clause.markers == statement.markers and _begins_with(clause, statement) and not _runs_on(clause, statement):
        return Judgement(verdict="supports", clause=clause)
    if clause.is_statement and len(clause.words) <= _MAX_RESTATED_WORDS and _is_close(statement, clause):
        return Judgement(verdict="restates", clause=clause)
    return _NONE


def _claims_alike(one: Clause, other: Clause) -> bool:
    return one.is_negated == other.is_negated and one.stance == other.stance


def _begins_with(clause: Clause, statement: Clause) -> bool:
    """Say whether `clause`, from its subject on, begins with all that the statement says."""
    return clause.claim[: len(statement.claim)] == statement.claim


def _runs_on(clause: Clause, statement: Clause) -> bool:
    """Say whether what follows in `clause` may limit the statement.

    ``a dog`` in ``a dog allergy``, ``I live in Paris`` in ``I live in Paris in my novel``; and after a denial whatever
    follows: ``I never drink`` in ``I never drink and drive``.
    """
    following = clause.claim[len(statement.claim) :]
    if not following or following in {("by", "the", "way"), ("by", "way"), ("as", "well"), ("as",)}:
        return False
    return following[0] not in _HARMLESS or statement.is_negated


def _contradicts(statement: Clause, clause: Clause) -> bool:
    """Say whether both are about the same, and one likes or affirms what the other does not."""
    if clause.markers != statement.markers:
        return False
    if statement.stance and clause.stance and statement.stance != clause.stance:
        return bool(statement.objects) and statement.objects <= clause.objects
    return statement.content_stems == clause.content_stems and statement.is_negated != clause.is_negated


def _is_close(statement: Clause, clause: Clause) -> bool:
    shared = len(statement.content_stems & clause.content_stems)
    covers = shared >= _MIN_SHARED and shared / len(statement.content_stems) >= MIN_COVERAGE
    return covers or _begins_with(clause, statement)
