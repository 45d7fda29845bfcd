"""From a group of agreeing claims, or from a clause of the user's own, to a fact with quotes, or to nothing.

The wordings that the samples used are tried in turn against the passages that search finds for them. When no
passage says the same but one comes close, the person's own clause becomes the statement, so that it says no more
than they did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from typing import Literal

from serving.extraction.asking.agreement import Claim, Group, Sample, agree, like_alike
from serving.extraction.asking.own_statements import OwnStatement
from serving.extraction.language.clauses import Clause
from serving.extraction.profile.profile import MAX_STATEMENT_CHARACTERS, Quote
from serving.extraction.support.judge import Judgement, judge_clauses, read_turn
from serving.extraction.support.search import SearchUserTurns
from serving.extraction.threads import to_its_end
from transcripts.search import Passage

_WORDINGS_TRIED = 3
_NEWEST_TURNS = 100  # in which a statement may be taken back
_LONGEST_QUOTE = 500
_OLDEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A clause about the user, the samples that said it, and the words that back or deny it.

    `support` is what search finds best, and is what confidence counts; `times` are those of every turn found that
    says it.
    """

    clause: Clause
    wording: Literal["adapter", "user"]
    samples: frozenset[Sample]
    topics: tuple[str, ...]
    support: tuple[Quote, ...]
    contradictions: tuple[Quote, ...] = ()
    times: frozenset[datetime] = frozenset()

    @property
    def text(self) -> str:
        """The statement as it is printed."""
        return self.clause.without_opener()


class Witness:
    """One user's own turns as they are called upon; each turn is read once in an extraction."""

    def __init__(self, search: SearchUserTurns, *, passages: int) -> None:
        self._search = search
        self._passages = passages
        self._read: dict[tuple[str, int], tuple[Clause, ...]] = {}

    async def fact_of_group(self, group: Group) -> Fact | None:
        """Return the fact that the user's turns make of `group`; None when nothing backs it."""
        wordings = group.wordings[:_WORDINGS_TRIED]
        found = {wording: await self._search(wording.text, limit=self._passages) for wording in wordings}
        for wording in wordings:
            passages = found[wording]
            if fact := await self._backed(wording, "adapter", passages, samples=group.samples, topics=group.topics):
                return fact
        for wording in wordings:
            for clause in self._restatements(wording, found[wording]):
                # The clause may be of a turn that answers other words of it as well.
                more = await self._search(clause.text, limit=self._passages)
                passages = _distinct([*found[wording], *more])
                if fact := await self._backed(clause, "user", passages, samples=group.samples, topics=group.topics):
                    return fact
        return None

    async def fact_of_own(self, own: OwnStatement, *, claims: Sequence[Claim]) -> Fact | None:
        """Return the fact that a statement of the user's own makes, with the samples whose claims agree with it."""
        passages = _distinct([*own.passages, *await self._search(own.clause.text, limit=self._passages)])
        samples = frozenset(claim.sample for claim in claims if agree(own.clause, claim.clause))
        return await self._backed(own.clause, "user", passages, samples=samples, topics=(own.topic,))

    def _judge(self, statement: Clause, passage: Passage) -> Judgement:
        key = (passage.transcript_id, passage.turn_index)
        if key not in self._read:
            self._read[key] = read_turn(passage.text)
        return judge_clauses(statement, self._read[key])

    async def _backed(
        self,
        clause: Clause,
        wording: Literal["adapter", "user"],
        passages: Sequence[Passage],
        *,
        samples: frozenset[Sample],
        topics: tuple[str, ...],
    ) -> Fact | None:
        judged = [(passage, self._judge(clause, passage)) for passage in passages]
        supporting = [(p, j.clause) for p, j in judged if j.verdict == "supports" and j.clause is not None]
        if supporting and not any(clause.emphasis <= found.emphasis for _, found in supporting):
            # The adapter says it more strongly than the person did: print what the person said.
            plainest = min((found for _, found in supporting), key=lambda found: (len(found.words), found.text))
            return await self._backed(plainest, "user", passages, samples=samples, topics=topics)
        support = _quotes(supporting)
        if not support or len(clause.without_opener()) > MAX_STATEMENT_CHARACTERS:
            return None
        known = {(passage.transcript_id, passage.turn_index) for passage in passages}
        others = [p for p in await self._over_time(clause) if (p.transcript_id, p.turn_index) not in known]
        judged += await to_its_end(lambda: [(passage, self._judge(clause, passage)) for passage in others])
        against = _quotes((p, j.clause) for p, j in judged if j.verdict == "contradicts" and j.clause is not None)
        return Fact(
            clause=clause,
            wording=wording,
            samples=samples,
            topics=topics,
            support=tuple(support),
            contradictions=tuple(newest_first(against)[: self._passages]),  # as many as may support it
            times=frozenset(p.time for p, j in judged if j.verdict == "supports" and p.time is not None),
        )

    async def _over_time(self, clause: Clause) -> list[Passage]:
        """Return the newest and the oldest turns about what `clause` is about.

        What is said often fills the best ones: when it was said first and last, and that it was taken back once, in
        fewer of its words, they need not show.
        """
        newest = await self._search(clause.topic_text, limit=_NEWEST_TURNS, order="newest")
        if len(newest) < _NEWEST_TURNS:
            return [*newest]
        return _distinct([*newest, *await self._search(clause.topic_text, limit=self._passages, order="oldest")])

    def _restatements(self, wording: Clause, passages: Sequence[Passage]) -> list[Clause]:
        """Return the user's clauses that come close to `wording`, the closest first."""
        judged = (self._judge(wording, passage) for passage in passages)
        clauses = [j.clause for j in judged if j.verdict == "restates" and j.clause is not None]
        return sorted(
            clauses, key=lambda c: (-len(c.content_stems & wording.content_stems), len(c.content_stems), c.text)
        )


def merge_facts(facts: Iterable[Fact]) -> list[Fact]:
    """Return one fact for each statement: claims that were restated alike are one, said by all their samples."""
    merged: dict[tuple[str, ...], Fact] = {}
    for fact in facts:
        known = merged.get(fact.clause.claim)
        merged[fact.clause.claim] = fact if known is None else _merge(known, fact)
    return list(merged.values())


def newest_first(quotes: Iterable[Quote]) -> list[Quote]:
    """Return quotes by falling time, those without a time last."""
    return sorted(quotes, key=lambda quote: quote.time or _OLDEST, reverse=True)


def share_likings(facts: Sequence[Fact]) -> list[Fact]:
    """Return each fact with the samples and quotes of all that say the same liking in other words, its own first.

    Which wording is stated, their contrast decides; that three turns said it holds for each of them.
    """
    return [reduce(_with_evidence_of, (o for o in facts if like_alike(fact.clause, o.clause)), fact) for fact in facts]


def _merge(one: Fact, other: Fact) -> Fact:
    return replace(_with_evidence_of(one, other), topics=tuple(dict.fromkeys((*one.topics, *other.topics))))


def _with_evidence_of(one: Fact, other: Fact) -> Fact:
    return replace(
        one,
        samples=one.samples | other.samples,
        support=_distinct_quotes((*one.support, *other.support)),
        contradictions=tuple(newest_first(_distinct_quotes((*one.contradictions, *other.contradictions)))),
        times=one.times | other.times,
    )


def shown_quotes(quotes: Sequence[Quote], *, most: int) -> tuple[Quote, ...]:
    """Return at most so many, different words before the same words again."""
    first = {quote.quote.casefold(): quote for quote in reversed(quotes)}
    different = [quote for quote in quotes if first[quote.quote.casefold()] is quote]
    repeated = [quote for quote in quotes if first[quote.quote.casefold()] is not quote]
    return tuple((different + repeated)[:most])


def _quotes(found: Iterable[tuple[Passage, Clause]]) -> list[Quote]:
    """One quote a turn: the sentence, or of an endless one the clause."""
    quotes = []
    for passage, clause in found:
        words = clause.sentence if len(clause.sentence) <= _LONGEST_QUOTE else clause.text
        if len(words) <= _LONGEST_QUOTE:
            quotes.append(
                Quote(quote=words, transcript_id=passage.transcript_id, turn=passage.turn_index, time=passage.time)
            )
    return list(_distinct_quotes(quotes))


def _distinct_quotes(quotes: Iterable[Quote]) -> tuple[Quote, ...]:
    """One quote a turn: the first."""
    found: dict[tuple[str, int], Quote] = {}
    for quote in quotes:
        found.setdefault((quote.transcript_id, quote.turn), quote)
    return tuple(found.values())


def _distinct(passages: Iterable[Passage]) -> list[Passage]:
    return list({(passage.transcript_id, passage.turn_index): passage for passage in passages}.values())
