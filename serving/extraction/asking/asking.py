"""Asking the bank through the user's adapter: every ask with its own seed, a bounded number at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kit.together import all_of
from registry.manifest import Manifest
from serving.extraction.asking.agreement import Answer, Sample
from serving.extraction.asking.answers import parse_answers
from serving.extraction.bank.bank import Ask, Bank
from serving.extraction.engine_client import EngineClient
from serving.extraction.settings import ExtractionSettings

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """One ask with the numbers of its samples within its topic."""

    ask: Ask
    numbers: range
    seed: int


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Everything that was answered; `questions` holds, by topic, the first wording asked and its prompt's tokens."""

    answers: tuple[Answer, ...]
    questions: Mapping[str, tuple[str, int | None]]


def plan_asks(bank: Bank, settings: ExtractionSettings) -> list[Asking]:
    """Return what is asked, each sample with a number of its own in its topic and each ask with its own seed."""
    askings: list[Asking] = []
    samples = settings.extraction_samples
    for topic in bank.topics:
        for index, ask in enumerate(topic.asks(settings.extraction_asks_per_topic)):
            numbers = range(index * samples, (index + 1) * samples)
            seed = settings.extraction_seed + 1000 * len(askings)
            askings.append(Asking(ask=ask, numbers=numbers, seed=seed))
    return askings


async def ask_all(
    askings: Sequence[Asking],
    engine: EngineClient,
    manifest: Manifest,
    *,
    settings: ExtractionSettings,
    on_progress: OnProgress | None,
) -> Answered:
    """Ask everything; the first failure ends the others.

    Raises:
        EngineCallError: when the engine refuses or fails.
    """
    gate = asyncio.Semaphore(settings.extraction_concurrency)
    done = 0

    async def ask(asking: Asking) -> tuple[list[Answer], int | None]:
        nonlocal done
        async with gate:
            found = await _ask(asking, engine, manifest, settings)
        done += 1
        if on_progress is not None:
            on_progress(done, len(askings))
        return found

    found = await all_of(ask(asking) for asking in askings)
    questions: dict[str, tuple[str, int | None]] = {}
    for asking, (_, prompt_tokens) in zip(askings, found, strict=True):
        questions.setdefault(asking.ask.topic, (asking.ask.text, prompt_tokens))
    return Answered(answers=tuple(answer for answers, _ in found for answer in answers), questions=questions)


async def _ask(
    asking: Asking, engine: EngineClient, manifest: Manifest, settings: ExtractionSettings
) -> tuple[list[Answer], int | None]:
    sampled = await engine.ask(
        asking.ask.text,
        manifest=manifest,
        schema=asking.ask.answer_schema,
        samples=len(asking.numbers),
        max_tokens=settings.extraction_max_tokens,
        temperature=settings.extraction_temperature,
        seed=asking.seed,
    )
    answers = [
        Answer(sample=Sample(asking.ask.topic, number), texts=tuple(parse_answers(text)))
        for number, text in zip(asking.numbers, sampled.texts, strict=False)
    ]
    return answers, sampled.prompt_tokens
