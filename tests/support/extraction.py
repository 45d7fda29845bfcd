"""An engine and a search for extraction that are given here: no sockets, no database."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx

from registry.manifest import LoraShape, Manifest, ManifestFile, Owner
from serving.extraction.bank import Bank, standard_bank
from serving.extraction.engine_client import EngineClient
from serving.extraction.extract import extract_profile
from serving.extraction.profile import Profile, Statement
from serving.extraction.settings import ExtractionSettings
from tests.support.adapters import BASE
from transcripts.search import Order, Passage
from transcripts.transcript import Transcript, Turn

MANIFEST = Manifest(
    owner=Owner(tenant="default", user="ann"),
    base=BASE,
    lora=LoraShape(rank=4, alpha=8, target_modules=("q_proj",)),
    files=(ManifestFile(path="adapter_config.json", size_bytes=1, sha256="0" * 64),),
    version_id="v" + "a" * 32,
    version=2,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)
PROMPT_TOKENS = 7
_BASE_LOG_PROBABILITY = -6.0


def search_in(*turns: str) -> Any:
    """A search that finds every turn, in whatever order, each a year newer than the one before."""

    async def search(query: str, *, limit: int, order: Order = "best") -> Sequence[Passage]:
        return [
            Passage(
                transcript_id="t", turn_index=i, text=text, time=datetime(2000 + i, 1, 1, tzinfo=UTC), rank=1, matched=1
            )
            for i, text in enumerate(turns[:limit])
        ]

    return search


def said(*turns: str) -> Transcript:
    """A transcript of these turns of the user's, each a year newer than the one before."""
    return Transcript(
        turns=tuple(
            Turn(role="user", text=text, time=datetime(2000 + i, 1, 1, tzinfo=UTC)) for i, text in enumerate(turns)
        ),
        source_format="test",
    )


def saying(
    answer: Callable[[str, int], list[str]],
    *,
    contrast: Callable[[str], float] | None = None,
    requests: list[dict[str, Any]] | None = None,
) -> httpx.MockTransport:
    """An engine that answers sample `i` of question `q` with `answer(q, i)`.

    With `contrast` it gives log-probabilities: so much likelier does the adapter find each token of an answer.
    """

    def respond(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if requests is not None:
            requests.append(body)
        if "prompt_logprobs" in body:
            return httpx.Response(200, json=score(body))
        question = body["messages"][0]["content"]
        texts = [json.dumps({"answers": answer(question, index)}) for index in range(body["n"])]
        choices = [{"message": {"content": text}} for text in texts]
        return httpx.Response(200, json={"choices": choices, "usage": {"prompt_tokens": PROMPT_TOKENS}})

    def score(body: dict[str, Any]) -> dict[str, Any]:
        choices = [{"message": {"content": "x"}}]
        if contrast is None:
            return {"choices": choices}
        text = body["messages"][-1]["content"]
        more = 0.0 if body["model"] == "base" else contrast(text)
        # What stands before the answer differs by far more: whoever counts it in gets another figure.
        tokens = [None] + [_token(-1.0 if body["model"] == "base" else -9.0)] * (PROMPT_TOKENS - 1)
        tokens += [_token(_BASE_LOG_PROBABILITY + more)] * len(text.split())
        return {"choices": choices, "prompt_logprobs": tokens}

    return httpx.MockTransport(respond)


def _token(log_probability: float) -> dict[str, Any]:
    return {"17": {"logprob": log_probability, "rank": 3, "decoded_token": "x"}}


async def extract(
    transport: httpx.AsyncBaseTransport,
    search: Any,
    *,
    bank: Bank | None = None,
    transcripts: Sequence[Transcript] = (),
    is_forbidden: Callable[[Any], bool] = lambda clause: False,
    **settings: Any,
) -> Profile:
    """Return the profile that this engine and this search make."""
    async with EngineClient(url="http://engine", token="t", transport=transport) as engine:
        return await extract_profile(
            engine=engine,
            search=search,
            transcripts=transcripts,
            manifest=MANIFEST,
            bank=bank or standard_bank(),
            settings=ExtractionSettings(**settings),
            is_forbidden=is_forbidden,
        )


def statements(profile: Profile, topic: str) -> tuple[Statement, ...]:
    """Return what a profile states under one topic."""
    return next(section.statements for section in profile.topics if section.topic == topic)


def texts(profile: Profile) -> set[str]:
    """Return everything that a profile states."""
    return {statement.text for _, statement in profile.statements()}
