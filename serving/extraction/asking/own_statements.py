"""Candidates that come straight from the user: what they plainly said of themselves, to be put to the adapter.

A small model remembers few sentences of its own accord. What the user said is supported by definition; whether
it is theirs rather than everybody's, the adapter's contrast with the base has to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest

from serving.extraction.bank.bank import Bank
from serving.extraction.bank.filing import topic_of
from serving.extraction.language.clauses import Clause
from serving.extraction.support.judge import read_turn
from transcripts.search import Passage
from transcripts.transcript import Transcript

_FEWEST_WORDS, _MOST_WORDS = 3, 25
_OLDEST = datetime.min.replace(tzinfo=UTC)


@dataclass(kw_only=True)
class OwnStatement:
    """One clause of the user's, the topic it fits, and the turns that say the same word for word."""

    clause: Clause
    topic: str
    passages: list[Passage] = field(default_factory=list)


def find_own_statements(transcripts: Iterable[Transcript], *, bank: Bank, limit: int) -> list[OwnStatement]:
    """Return at most `limit` statements, of every topic about as many: those said most often first, then the newest."""
    found: dict[tuple[str, ...], OwnStatement] = {}
    for clause, passage in _statements(transcripts):
        known = found.get(clause.claim)
        if known is None:
            topic = topic_of(clause, bank=bank)
            if topic is None:
                continue
            known = found[clause.claim] = OwnStatement(clause=clause, topic=topic)
        known.passages.append(passage)
    columns: dict[str, list[OwnStatement]] = {}
    for statement in sorted(found.values(), key=_rank):
        columns.setdefault(statement.topic, []).append(statement)
    in_turn = (each for row in zip_longest(*columns.values()) for each in row if each is not None)
    return [each for each, _ in zip(in_turn, range(limit), strict=False)]


def _statements(transcripts: Iterable[Transcript]) -> Iterator[tuple[Clause, Passage]]:
    for transcript in transcripts:
        for index, turn in enumerate(transcript.turns):
            if turn.role != "user":
                continue
            for clause in read_turn(turn.text):
                if _is_told_of_now(clause) and _FEWEST_WORDS <= len(clause.words) <= _MOST_WORDS:
                    yield (
                        clause,
                        Passage(
                            transcript_id=transcript.id,
                            turn_index=index,
                            text=turn.text,
                            time=turn.time,
                            rank=0.0,
                            matched=len(clause.content_stems),
                        ),
                    )


def _is_told_of_now(clause: Clause) -> bool:
    """Say whether a clause states something in earnest: where somebody lived once is told, what they liked is not."""
    return clause.is_statement and clause.is_real and not clause.is_former_liking


def _rank(statement: OwnStatement) -> tuple[int, float, tuple[str, ...]]:
    newest = max((passage.time or _OLDEST for passage in statement.passages), default=_OLDEST)
    return -len(statement.passages), -(newest - _OLDEST).total_seconds(), statement.clause.claim
