"""Extraction: ask the bank through the user's adapter, hear the user's own words, keep what is theirs and backed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from registry.manifest import Manifest
from serving.extraction.asking.agreement import claims_of, group_claims
from serving.extraction.asking.asking import Answered, OnProgress, ask_all, plan_asks
from serving.extraction.asking.own_statements import find_own_statements
from serving.extraction.bank.bank import Bank
from serving.extraction.bank.filing import topic_of
from serving.extraction.candidates import Candidate, Candidates, once
from serving.extraction.engine_client import EngineClient
from serving.extraction.language.clauses import Clause
from serving.extraction.profile.fact_id import fact_id
from serving.extraction.profile.profile import (
    AdapterVersion,
    Agreement,
    Asked,
    BankVersion,
    Profile,
    Statement,
    TopicSection,
)
from serving.extraction.scoring.confidence import Calibration, Scores, standard_calibration
from serving.extraction.scoring.contrast import ContrastMeter, Said
from serving.extraction.settings import ExtractionSettings
from serving.extraction.style import measure_style
from serving.extraction.support.evidence import Fact, Witness, merge_facts, share_likings, shown_quotes
from serving.extraction.support.search import SearchUserTurns
from serving.extraction.threads import to_its_end
from transcripts.transcript import Transcript


async def extract_profile(
    *,
    engine: EngineClient,
    search: SearchUserTurns,
    transcripts: Sequence[Transcript],
    manifest: Manifest,
    bank: Bank,
    settings: ExtractionSettings,
    calibration: Calibration | None = None,
    is_forbidden: Callable[[Clause], bool] = lambda clause: False,
    on_progress: OnProgress | None = None,
) -> Profile:
    """Return the profile of the adapter's user.

    Args:
        engine: answers as the adapter version `manifest` describes, and as the base.
        search: finds the user's own turns.
        transcripts: all of the user's, for their own statements and the measured patterns.
        manifest: the adapter version to ask; its owner is the profile's user.
        bank: what to ask.
        settings: how much to ask and to keep.
        calibration: how scores become a confidence; None = as Lorry ships it.
        is_forbidden: says of a clause that it must not be stated.
        on_progress: told (asks answered, asks in all) after each.

    Raises:
        EngineCallError: when the engine refuses or fails; nothing is kept then.
        BaseNotServed: when the engine does not call its base as the settings say.
    """
    calibration = calibration or standard_calibration()
    found = await find_candidates(
        engine=engine,
        search=search,
        transcripts=transcripts,
        manifest=manifest,
        bank=bank,
        settings=settings,
        calibration=calibration,
        on_progress=on_progress,
    )
    allowed = once(each for each in found.candidates if not is_forbidden(each.fact.clause))
    sure = [each for each in allowed if is_sure(each.scores, each.confidence, settings)]
    patterns = await to_its_end(lambda: measure_style(transcripts))
    return Profile(
        user=manifest.owner.user,
        adapter=AdapterVersion(version=manifest.version, version_id=manifest.version_id),
        bank=BankVersion(name=bank.name, version=bank.version),
        calibration=calibration.origin(),
        generated_at=datetime.now(UTC).replace(microsecond=0),
        asked=found.asked.model_copy(update={"uncertain_claims": len(allowed) - len(sure)}),
        topics=_sections(sure, bank=bank, settings=settings),
        patterns=patterns,
    )


async def find_candidates(
    *,
    engine: EngineClient,
    search: SearchUserTurns,
    transcripts: Sequence[Transcript],
    manifest: Manifest,
    bank: Bank,
    settings: ExtractionSettings,
    calibration: Calibration,
    on_progress: OnProgress | None = None,
) -> Candidates:
    """Return every supported fact with its scores, stated or not: what calibration is fitted and measured on.

    Raises:
        EngineCallError, BaseNotServed: as `extract_profile` does.
    """
    answered = await ask_all(plan_asks(bank, settings), engine, manifest, settings=settings, on_progress=on_progress)
    claims = claims_of(answered.answers)
    most = settings.extraction_own_statements
    own = await to_its_end(lambda: find_own_statements(transcripts, bank=bank, limit=most))
    witness = Witness(search, passages=settings.extraction_passages)
    from_groups = [await witness.fact_of_group(group) for group in group_claims(claims)]
    from_own = [await witness.fact_of_own(each, claims=claims) for each in own]
    facts = share_likings(merge_facts(fact for fact in (*from_groups, *from_own) if fact is not None))
    filed = [(fact, topic) for fact in facts if (topic := _topic(fact, bank)) is not None]
    meter = ContrastMeter(
        engine, manifest=manifest, base_name=settings.base_name, at_once=settings.extraction_concurrency
    )
    scored = await _score(filed, answered, meter=meter if settings.extraction_contrast else None)
    candidates = [
        Candidate(fact=fact, topic=topic, scores=scores, confidence=calibration.confidence(scores))
        for fact, topic, scores in scored
    ]
    candidates.sort(key=lambda each: (-each.confidence, each.fact.text.casefold()))
    return Candidates(
        candidates=tuple(candidates),
        asked=Asked(
            questions=len(plan_asks(bank, settings)),
            samples=len(answered.answers),
            unusable_answers=sum(not answer.texts for answer in answered.answers),
            own_statements=len(own),
            unsupported_claims=sum(fact is None for fact in from_groups),
        ),
    )


def is_sure(scores: Scores, confidence: float, settings: ExtractionSettings) -> bool:
    """Say whether a supported fact is sure enough to be stated.

    One that no sample says, and whose contrast nobody measured, is only known to have been said.
    """
    if scores.agreeing < settings.extraction_min_agreeing or (scores.contrast is None and not scores.agreeing):
        return False
    return confidence >= settings.extraction_min_confidence


def _topic(fact: Fact, bank: Bank) -> str | None:
    """Return where a fact is filed; what is wished, doubted or to come is no fact and fits nowhere."""
    return topic_of(fact.clause, bank=bank, asked_under=fact.topics) if fact.clause.is_real else None


async def _score(
    filed: Sequence[tuple[Fact, str]], answered: Answered, *, meter: ContrastMeter | None
) -> list[tuple[Fact, str, Scores]]:
    said = {fact.clause.claim: _said(fact, topic, answered) for fact, topic in filed}
    to_measure = [each for each in said.values() if each is not None]
    contrasts = await meter.measure(to_measure) if meter is not None else {}
    samples = Counter(answer.sample.topic for answer in answered.answers)
    scored = []
    for fact, topic in filed:
        question = said[fact.clause.claim]
        measured = contrasts.get(question) if question is not None else None
        topics = {sample.topic for sample in fact.samples} or {topic}
        scores = Scores(
            agreeing=len(fact.samples),
            asked=sum(samples[each] for each in topics),
            contrast=measured.contrast if measured is not None else None,
            surprise=measured.surprise if measured is not None else None,
            supporting=len(fact.support),
            contradicting=len(fact.contradictions),
        )
        scored.append((fact, topic, scores))
    return scored


def _said(fact: Fact, topic: str, answered: Answered) -> Said | None:
    """Return the fact as an answer to its topic's first question; None when the engine did not count its tokens."""
    question, prompt_tokens = answered.questions.get(topic, ("", None))
    return Said(question, f"{fact.text}.", prompt_tokens) if prompt_tokens is not None else None


def _sections(candidates: Sequence[Candidate], *, bank: Bank, settings: ExtractionSettings) -> tuple[TopicSection, ...]:
    """Put every fact under its topic, the surest first, at most so many."""
    filed: dict[str, list[Statement]] = {topic.topic: [] for topic in bank.topics}
    for candidate in candidates:
        if len(filed[candidate.topic]) < settings.extraction_max_statements:
            filed[candidate.topic].append(_statement(candidate, quotes=settings.extraction_max_quotes))
    return tuple(TopicSection.of(topic.topic, topic.title, tuple(filed[topic.topic])) for topic in bank.topics)


def _statement(candidate: Candidate, *, quotes: int) -> Statement:
    fact, scores = candidate.fact, candidate.scores
    times = sorted(fact.times)
    return Statement(
        id=fact_id(fact.text),
        text=fact.text,
        wording=fact.wording,
        confidence=candidate.confidence,
        agreement=Agreement(k=scores.agreeing, n=max(scores.asked, 1)),
        contrast=scores.contrast,
        surprise=scores.surprise,
        support=shown_quotes(fact.support, most=quotes),
        contradictions=fact.contradictions[:quotes],
        first_seen=times[0] if times else None,
        last_seen=times[-1] if times else None,
    )
