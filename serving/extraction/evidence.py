"""From a group of agreeing claims to a fact with quotes, or to nothing.

The wordings that the samples used are tried in turn against the passages that search finds for them. When no
passage says the same but one comes close, the person's own clause becomes the statement, so that it says no more
than they did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from serving.extraction.agreement import Group, Sample
from serving.extraction.profile import Quote
from serving.extraction.support import judge
from serving.extraction.words import Clause
from transcripts.search import Passage

_WORDINGS_TRIED = 3
_MAX_CHARACTERS = 400
_OLDEST = datetime.min.replace(tzinfo=UTC)


class SearchUserTurns(Protocol):
    """Finds one user's own turns; the user is bound by whoever makes it."""

    async def __call__(self, query: str, *, limit: int) -> Sequence[Passage]:
        """Return at most `limit` turns that share words with `query`, best first."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A clause about the user, the samples that said it, and the words that back or deny it."""

    clause: Clause
    wording: Literal["adapter", "user"]
    samples: frozenset[Sample]
    topics: tuple[str, ...]
    support: tuple[Quote, ...]
    contradictions: tuple[Quote, ...] = ()

    @property
    def text(self) -> str:
        """The statement as it is printed."""
        return self.clause.without_opener()


async def find_fact(group: Group, *, search: SearchUserTurns, passages: int) -> Fact | None:
    """Return the fact that the user's turns make of `group`; None when nothing backs it."""
    wordings = group.wordings[:_WORDINGS_TRIED]
    found = {wording: await search(wording.text, limit=passages) for wording in wordings}
    for wording in wordings:
        if fact := _backed(wording, "adapter", found[wording], group):
            return fact
    for wording in wordings:
        for clause in _restatements(wording, found[wording]):
            # The clause may be of a turn that answers other words of it as well.
            more = await search(clause.text, limit=passages)
            if fact := _backed(clause, "user", _distinct([*found[wording], *more]), group):
                return fact
    return None


def merge_facts(facts: Iterable[Fact]) -> list[Fact]:
    """Return one fact for each statement: claims that were restated alike are one, said by all their samples."""
    merged: dict[tuple[str, ...], Fact] = {}
    for fact in facts:
        known = merged.get(fact.clause.claim)
        merged[fact.clause.claim] = fact if known is None else _merge(known, fact)
    return list(merged.values())


def _merge(one: Fact, other: Fact) -> Fact:
    return Fact(
        clause=one.clause,
        wording=one.wording,
        samples=one.samples | other.samples,
        topics=tuple(dict.fromkeys((*one.topics, *other.topics))),
        support=one.support,
        contradictions=one.contradictions,
    )


def _backed(
    clause: Clause, wording: Literal["adapter", "user"], passages: Sequence[Passage], group: Group
) -> Fact | None:
    judged = [(passage, judge(clause, passage.text)) for passage in passages]
    supporting = [(p, j.clause) for p, j in judged if j.verdict == "supports" and j.clause is not None]
    if supporting and not any(clause.emphasis <= found.emphasis for _, found in supporting):
        # The adapter says it more strongly than the person did: print what the person said.
        plainest = min((found for _, found in supporting), key=lambda found: (len(found.words), found.text))
        return _backed(plainest, "user", passages, group)
    support = _quotes(supporting)
    if not support or len(clause.without_opener()) > _MAX_CHARACTERS:
        return None
    against = _quotes((p, j.clause) for p, j in judged if j.verdict == "contradicts" and j.clause is not None)
    against.sort(key=lambda quote: quote.time or _OLDEST, reverse=True)
    return Fact(
        clause=clause,
        wording=wording,
        samples=group.samples,
        topics=group.topics,
        support=tuple(support),
        contradictions=tuple(against),
    )


def _restatements(wording: Clause, passages: Sequence[Passage]) -> list[Clause]:
    """Return the user's clauses that come close to `wording`, the closest first."""
    judged = (judge(wording, passage.text) for passage in passages)
    clauses = [j.clause for j in judged if j.verdict == "restates" and j.clause is not None]
    return sorted(clauses, key=lambda c: (-len(c.content_stems & wording.content_stems), len(c.content_stems), c.text))


def _quotes(found: Iterable[tuple[Passage, Clause]]) -> list[Quote]:
    quotes: dict[str, Quote] = {}
    for passage, clause in found:
        quote = Quote(
            quote=clause.sentence, transcript_id=passage.transcript_id, turn=passage.turn_index, time=passage.time
        )
        quotes.setdefault(quote.quote.casefold(), quote)
    return list(quotes.values())


def _distinct(passages: Iterable[Passage]) -> list[Passage]:
    return list({(passage.transcript_id, passage.turn_index): passage for passage in passages}.values())
