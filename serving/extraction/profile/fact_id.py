"""The name of a fact: equal for equal claims, in every profile of every user, and stable over extractions."""

from __future__ import annotations

from kit.canonical import sha256_json
from serving.extraction.language.clauses import Clause

_DIGITS = 12


def fact_id(text: str) -> str:
    """Return the id of a statement: that of its claim, so that articles, emphasis and openers do not change it."""
    clause = Clause(text, text)
    claim = clause.claim or tuple(word.key for word in clause.words) or (text.casefold(),)
    return f"f{sha256_json(list(claim))[:_DIGITS]}"
