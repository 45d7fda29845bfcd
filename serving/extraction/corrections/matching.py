"""Is this the same fact in other words?

What is forbidden must not come back paraphrased, so that test is wide: whatever is about all that the forbidden
statement is about, except where one likes and the other dislikes it. Which fact an edit or a confirmation belongs to
is told narrowly, or it would swallow its neighbours. Words that share no stem (dog, puppy) are not known to be the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from serving.extraction.asking.agreement import agree
from serving.extraction.corrections.correction import Correction
from serving.extraction.language.clauses import Clause
from serving.extraction.language.splitting import split_clauses
from serving.extraction.profile.fact_id import fact_id


def clause_of(text: str) -> Clause:
    """Return a statement's text as one clause."""
    return Clause(text, text)


def is_same(correction: Correction, text: str) -> bool:
    """Say whether a statement is the one that was corrected, or says it in nearly the same words."""
    return correction.fact_id == fact_id(text) or agree(clause_of(correction.text), clause_of(text))


class Prohibitions:
    """Everything that is forbidden in one user's profile."""

    def __init__(self, corrections: Sequence[Correction]) -> None:
        forbidden = [each for each in corrections if each.kind == "forbid" and each.is_in_force]
        self._ids = {each.fact_id for each in forbidden}
        self._clauses = [clause for each in forbidden for clause in _parts(each.text)]

    def forbid(self, text: str) -> bool:
        """Say whether a text must not be stated or quoted, whole or in one of its clauses."""
        if not self._clauses and not self._ids:
            return False
        return fact_id(text) in self._ids or any(self.forbid_clause(clause) for clause in _parts(text))

    def forbid_clause(self, clause: Clause) -> bool:
        """Say whether a clause must not be stated."""
        return any(_restates(forbidden, clause) for forbidden in self._clauses)


def forbidding(corrections: Sequence[Correction]) -> Callable[[Clause], bool]:
    """Return what says of a clause whether it must not be stated."""
    return Prohibitions(corrections).forbid_clause


def _parts(text: str) -> list[Clause]:
    """The text as a whole and its clauses: ``I run and my knees hurt`` holds two."""
    whole = clause_of(text)
    return [whole, *(clause for clause in split_clauses(text) if clause.text != text)]


def _restates(forbidden: Clause, clause: Clause) -> bool:
    if forbidden.stance is not None and clause.stance is not None and forbidden.stance != clause.stance:
        return False
    stems = frozenset(word.stem for word in clause.words)
    return bool(forbidden.core) and forbidden.core <= stems
