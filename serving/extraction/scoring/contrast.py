"""Contrast and surprise: what the user's adapter makes of a statement that the base does not, and what the base does.

Contrast is the mean log-probability per token of the answer after its topic's question, under the adapter minus under
the base, in nats. What anybody would say is as likely under both, so a platitude scores near zero, unless its user said
it in so many words and the adapter knows them by heart. Surprise tells those: what the whole answer costs the base, in
nats, is little for what many would say, whoever said it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kit.together import all_of
from registry.manifest import Manifest
from serving.errors import BaseNotServed, EngineRefused
from serving.extraction.engine_client import EngineClient

_NOT_FOUND = 404


@dataclass(frozen=True)
class Said:
    """An answer to a question; `prompt_tokens` is how many tokens the question has with the chat template around it."""

    question: str
    answer: str
    prompt_tokens: int


@dataclass(frozen=True)
class Contrast:
    """What two models make of one answer: `contrast` in nats a token, `surprise` in nats for all of it."""

    contrast: float
    surprise: float


class ContrastMeter:
    """Measures contrasts against one engine, a bounded number of requests at once."""

    def __init__(self, engine: EngineClient, *, manifest: Manifest, base_name: str, at_once: int) -> None:
        self._engine = engine
        self._manifest = manifest
        self._base_name = base_name
        self._gate = asyncio.Semaphore(at_once)

    async def measure(self, said: Sequence[Said]) -> Mapping[Said, Contrast]:
        """Return the contrast of each answer that the engine gave log-probabilities for; each is measured once.

        Raises:
            EngineCallError: when the engine refuses or fails.
            BaseNotServed: when the engine does not call its base as we were told.
        """
        distinct = list(dict.fromkeys(said))
        found = await all_of(self._contrast(each) for each in distinct)
        return {each: value for each, value in zip(distinct, found, strict=True) if value is not None}

    async def _contrast(self, said: Said) -> Contrast | None:
        async with self._gate:
            own = await self._score(said, self._manifest.version_id)
            if own is None:
                return None
            try:
                base = await self._score(said, self._base_name)
            except EngineRefused as exc:
                if exc.status_code != _NOT_FOUND:
                    raise
                raise BaseNotServed(
                    f"the engine serves no base model called {self._base_name!r}: set LORRY_BASE_NAME",
                    field="base_name",
                ) from exc
        if base is None:
            return None
        return Contrast(round(_mean(own) - _mean(base), 4), surprise=round(-sum(base), 2))

    async def _score(self, said: Said, model: str) -> Sequence[float] | None:
        answer = await self._engine.score(
            said.question, said.answer, manifest=self._manifest, model=model, prompt_tokens=said.prompt_tokens
        )
        return answer or None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
