"""Extraction: ask the bank through the user's adapter, keep what agrees and is backed, measure the style."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from registry.manifest import Manifest
from serving.extraction.agreement import Answer, Sample, claims_of, group_claims
from serving.extraction.bank import Ask, Bank, Topic
from serving.extraction.engine_client import EngineClient, parse_answers
from serving.extraction.evidence import Fact, SearchUserTurns, find_fact, merge_facts
from serving.extraction.profile import (
    AdapterVersion,
    Agreement,
    Asked,
    BankVersion,
    Profile,
    Statement,
    TopicSection,
)
from serving.extraction.settings import ExtractionSettings
from serving.extraction.style import measure_style
from serving.extraction.words import Clause, read_words
from transcripts.transcript import Transcript

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class _Asking:
    """One ask with the numbers of its samples within its topic."""

    ask: Ask
    numbers: range
    seed: int


async def extract_profile(
    *,
    engine: EngineClient,
    search: SearchUserTurns,
    transcripts: Sequence[Transcript],
    manifest: Manifest,
    bank: Bank,
    settings: ExtractionSettings,
    on_progress: OnProgress | None = None,
) -> Profile:
    """Return the profile of the adapter's user.

    Args:
        engine: answers as the adapter version `manifest` describes.
        search: finds the user's own turns.
        transcripts: all of the user's, for the measured patterns.
        manifest: the adapter version to ask; its owner is the profile's user.
        bank: what to ask.
        settings: how much to ask and to keep.
        on_progress: told (asks answered, asks in all) after each.

    Raises:
        EngineCallError: when the engine refuses or fails; nothing is kept then.
    """
    askings = _plan(bank, settings)
    answers = await _ask_all(askings, engine, manifest, settings, on_progress)
    groups = group_claims(claims_of(answers))
    facts = [await find_fact(group, search=search, passages=settings.extraction_passages) for group in groups]
    backed = merge_facts(fact for fact in facts if fact is not None)
    sections = _file(backed, bank=bank, asked=Counter(a.sample.topic for a in answers), settings=settings)
    patterns = await asyncio.to_thread(measure_style, transcripts)
    return Profile(
        user=manifest.owner.user,
        adapter=AdapterVersion(version=manifest.version, version_id=manifest.version_id),
        bank=BankVersion(name=bank.name, version=bank.version),
        generated_at=datetime.now(UTC).replace(microsecond=0),
        asked=Asked(
            questions=len(askings),
            samples=len(answers),
            unusable_answers=sum(not answer.texts for answer in answers),
            unsupported_claims=sum(fact is None for fact in facts),
        ),
        topics=sections,
        patterns=patterns,
    )


def _plan(bank: Bank, settings: ExtractionSettings) -> list[_Asking]:
    """Return what is asked, each sample with a number of its own in its topic and each ask with its own seed."""
    askings: list[_Asking] = []
    samples = settings.extraction_samples
    for topic in bank.topics:
        for index, ask in enumerate(topic.asks(settings.extraction_asks_per_topic)):
            numbers = range(index * samples, (index + 1) * samples)
            seed = settings.extraction_seed + 1000 * len(askings)
            askings.append(_Asking(ask=ask, numbers=numbers, seed=seed))
    return askings


async def _ask_all(
    askings: Sequence[_Asking],
    engine: EngineClient,
    manifest: Manifest,
    settings: ExtractionSettings,
    on_progress: OnProgress | None,
) -> list[Answer]:
    """Ask everything, a bounded number at once; the first failure ends the others."""
    gate = asyncio.Semaphore(settings.extraction_concurrency)
    done = 0

    async def ask(asking: _Asking) -> list[Answer]:
        nonlocal done
        async with gate:
            answers = await _ask(asking, engine, manifest, settings)
        done += 1
        if on_progress is not None:
            on_progress(done, len(askings))
        return answers

    tasks = [asyncio.create_task(ask(asking)) for asking in askings]
    try:
        return [answer for answers in await asyncio.gather(*tasks) for answer in answers]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(asking: _Asking, engine: EngineClient, manifest: Manifest, settings: ExtractionSettings) -> list[Answer]:
    texts = await engine.ask(
        asking.ask.text,
        manifest=manifest,
        schema=asking.ask.answer_schema,
        samples=len(asking.numbers),
        max_tokens=settings.extraction_max_tokens,
        temperature=settings.extraction_temperature,
        seed=asking.seed,
    )
    return [
        Answer(sample=Sample(asking.ask.topic, number), texts=tuple(parse_answers(text)))
        for number, text in zip(asking.numbers, texts, strict=False)
    ]


def _file(
    facts: Sequence[Fact], *, bank: Bank, asked: Mapping[str, int], settings: ExtractionSettings
) -> tuple[TopicSection, ...]:
    """Put every fact under the first topic that it fits, the surest first; what fits none is left out."""
    filed: dict[str, list[Statement]] = {topic.topic: [] for topic in bank.topics}
    for fact in sorted(facts, key=lambda fact: (-len(fact.samples), fact.text.casefold())):
        topic = topic_of(fact.clause, bank=bank, asked_under=fact.topics)
        enough = len(fact.samples) >= settings.extraction_min_agreeing
        if topic is not None and enough and len(filed[topic]) < settings.extraction_max_statements:
            filed[topic].append(_statement(fact, asked=asked, quotes=settings.extraction_max_quotes))
    return tuple(
        TopicSection(
            topic=topic.topic,
            title=topic.title,
            statements=tuple(filed[topic.topic]),
            not_stated=not filed[topic.topic],
        )
        for topic in bank.topics
    )


def _statement(fact: Fact, *, asked: Mapping[str, int], quotes: int) -> Statement:
    asked_samples = sum(asked[topic] for topic in {sample.topic for sample in fact.samples})
    return Statement(
        text=fact.text,
        wording=fact.wording,
        agreement=Agreement(k=len(fact.samples), n=asked_samples),
        support=fact.support[:quotes],
        contradictions=fact.contradictions[:quotes],
    )


def topic_of(clause: Clause, *, bank: Bank, asked_under: Sequence[str]) -> str | None:
    """Return the topic to file a statement under: one it was asked under if it fits, else the first that fits."""
    by_name = {topic.topic: topic for topic in bank.topics}
    candidates = [*(by_name[name] for name in asked_under), *bank.topics]
    return next((topic.topic for topic in candidates if _fits(clause, topic)), None)


def _fits(clause: Clause, topic: Topic) -> bool:
    if topic.stance is not None:
        return clause.stance == topic.stance
    text = f" {' '.join(word.stem for word in clause.words)} "
    return any(f" {' '.join(word.stem for word in read_words(cue))} " in text for cue in topic.cues)
