"""Profiles of many users as one batch: users a minute, beside stock vLLM and beside a loop with PEFT and transformers.

16 users × 8 questions over 4 adapter slots (`LORRY_BENCH_USERS` and `LORRY_BENCH_QUESTIONS` set other numbers). Ours is
the whole job: submitted, planned, walked by a worker against a real registry, PostgreSQL and S3, results sealed; its
answers are no statements, so that there is little to look up. Stock vLLM gets the very same requests and nothing else
to do, one user after the other in turn, as they come from callers who know nothing of adapters; from how many callers
at once is tried first, and the best is taken. The loop takes a user's adapter from the local disk, puts it in the place
of the one before, and generates the answers to all of the user's questions as one batch, with as many threads as are
best.

Every answer has the same number of tokens: the schema wants more characters than they can hold. Questions differ from
round to round, so that no prefix cache answers. The round in which no engine has the adapters yet is told apart.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from bench.engines import Engines, Side, open_engines, tell
from bench.report import Measure, compare, report, rounds_or
from registry.manifest import DEFAULT_ADAPTER, LIVE, Owner
from serving.extraction.bank import Bank
from serving.jobs.batch import Submission
from serving.jobs.batches import Batches
from serving.jobs.selection import Selection
from serving.jobs.settings import ExtractionWorkerSettings
from serving.jobs.states import ENDED
from serving.jobs.worker import Worker
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript, Turn

_SLOTS, _SEATS = 4, 32
_ANSWER_TOKENS = 32
_TEMPERATURE = 0.5
_SCHEMA = {"type": "string", "minLength": 256}
_STOCK_TARGET, _LOOP_TARGET = 2.0, 3.0
_TENANT = "bench"
_POLL_SECONDS = 0.05
_TURNS = 60
_ABOUT = (
    "breakfast", "work", "music", "travelling", "reading", "sports", "pets", "cooking", "gardens", "films", "cities",
    "winter", "friends", "money", "sleep", "games", "painting", "cars", "the sea", "mountains", "coffee", "tea",
    "school", "history", "science", "dancing", "writing", "news", "holidays", "clothes", "bicycles", "birds",
)  # fmt: skip
_LOOP = """
import json, sys, time
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

given = json.loads(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(given["base"], padding_side="left")
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained(given["base"], dtype=torch.float32).eval()
chats = [[{"role": "user", "content": text}] for text in given["questions"]]
prompts = tokenizer.apply_chat_template(
    chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
)
first, *_ = given["adapters"]
model = PeftModel.from_pretrained(model, first, adapter_name="before")


def extract(directory, name, previous):
    model.load_adapter(directory, adapter_name=name)
    model.set_adapter(name)
    model.delete_adapter(previous)
    tokens = given["tokens"]
    with torch.inference_mode():
        answers = model.generate(
            **prompts, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=True,
            temperature=given["temperature"], pad_token_id=tokenizer.pad_token_id,
        )
    assert answers.shape[1] == prompts["input_ids"].shape[1] + tokens
    tokenizer.batch_decode(answers)
    return name


previous, best = extract(first, "warm", "before"), None
for threads in given["threads"]:
    torch.set_num_threads(threads)
    began = time.perf_counter()
    previous = extract(first, f"try{threads}", previous)
    found = (time.perf_counter() - began, threads)
    best = min(best or found, found)
torch.set_num_threads(best[1])
began = time.perf_counter()
for number, directory in enumerate(given["adapters"]):
    previous = extract(directory, f"user{number}", previous)
print(json.dumps({"seconds": time.perf_counter() - began, "threads": best[1]}))
"""


async def run(*, quick: bool) -> Path:
    """Measure and write the report."""
    rounds = 1 if quick else rounds_or(3)
    users = int(os.environ.get("LORRY_BENCH_USERS", 5 if quick else 16))
    questions = int(os.environ.get("LORRY_BENCH_QUESTIONS", 8))
    if not 1 <= questions <= len(_ABOUT):
        raise ValueError(f"LORRY_BENCH_QUESTIONS must be from 1 to {len(_ABOUT)}")
    engine = {"max_loras": _SLOTS, "max_cpu_loras": max(32, 2 * users), "max_num_seqs": _SEATS, "max_model_len": 512}
    async with open_engines(engine=engine) as engines:
        models = await _add_users(engines, users)
        callers = [_SEATS] if quick else await _tune(engines, models, questions)
        cold: dict[str, list[float]] = {name: [] for name in engines.sides}
        warm: dict[str, list[float]] = {name: [] for name in engines.sides}
        loop: list[float] = []
        for number in range(rounds + 1):
            asked = _questions(questions, round_=str(number))
            for side in engines.turns(number):
                if side.is_ours:
                    seconds = await _ours(engines, side, asked, users)
                else:
                    seconds = await _stock(engines, side, models, asked, callers=callers[0])
                rate = 60 * users / seconds
                tell(f"round {number}, {side.name}: {rate:.1f} users a minute")
                (warm if number else cold)[side.name].append(rate)
            if number:
                loop.append(60 * users / await asyncio.to_thread(_loop, engines, models, asked))
                tell(f"round {number}, PEFT and transformers: {loop[-1]:.1f} users a minute")
    size = f"{users} users × {questions} questions"
    measures = [measure for side in engines.ours for measure in _measures(side.name, size, warm, cold, loop)]
    return report("extraction_batch", measures, peer="stock vLLM; PEFT and transformers", quick=quick)


def _measures(
    name: str, size: str, warm: dict[str, list[float]], cold: dict[str, list[float]], loop: list[float]
) -> list[Measure]:
    unit = "users a minute"
    rates = [
        ("÷ stock vLLM, interleaved", warm[name], warm["stock"], _STOCK_TARGET),
        ("÷ PEFT and transformers, swapping", warm[name], loop, _LOOP_TARGET),
        ("adapters still in S3 ÷ stock, on its disk", cold[name], cold["stock"], None),
    ]
    return [
        compare(f"{name}: {size}, {what}", unit=unit, ours=ours, peer=peer, target=target, better="higher")
        for what, ours, peer, target in rates
    ]


def _questions(count: int, *, round_: str) -> list[str]:
    return [f"{round_}: what do you think about {about}, and why?" for about in _ABOUT[:count]]


async def _add_users(engines: Engines, users: int) -> list[str]:
    """Give each user an adapter that is live and conversations to be searched; returns the version ids."""
    models = await engines.shelf.add(users)
    for number, version_id in enumerate(models):
        owner = Owner(tenant=_TENANT, user=f"user-{number}")
        await engines.context.registry.move_alias(
            owner, DEFAULT_ADAPTER, LIVE, version_id=version_id, expected_version_id=None
        )
        turns = tuple(
            Turn(role="user", text=f"I think about {_ABOUT[(number + at) % len(_ABOUT)]} on day {at}, and I like it.")
            for at in range(_TURNS)
        )
        async with engines.context.database.transaction() as session:
            await TranscriptStore(session).add(_TENANT, owner.user, [Transcript(turns=turns, source_format="bench")])
    return models


# ----- ours


async def _ours(engines: Engines, side: Side, questions: Sequence[str], users: int) -> float:
    """Return the seconds from submitting a batch to its end."""
    settings = _worker_settings(engines, side)
    batches = Batches(engines.context.database, settings)
    async with engines.only(side):
        worker = Worker(settings, bank=_bank(questions))
        task = asyncio.create_task(worker.run())
        try:
            while worker.port == 0 and not task.done():  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
            began = time.perf_counter()
            batch = await batches.submit(Submission(tenant=_TENANT, selection=Selection.of(everybody=True)))
            while batch.state not in ENDED and not task.done():
                await asyncio.sleep(_POLL_SECONDS)
                batch = await batches.get(batch.id, tenant=_TENANT)
            seconds = time.perf_counter() - began
        finally:
            worker.stop.set()
            await task
    if batch.progress.done != users:
        raise RuntimeError(f"users failed, so nothing was measured: {batch.progress}, {batch.failures}")
    return seconds


def _worker_settings(engines: Engines, side: Side) -> ExtractionWorkerSettings:
    plan = engines.context.plan
    values: dict[str, Any] = {
        **plan.storage.model_dump(exclude={"log_level"}),
        "database_url": plan.database.database_url,
        "registry_url": plan.registry_url,
        "registry_token": plan.registry_token,
        "engine_url": side.url,
        "engine_token": side.token,
        "worker_id": f"bench-{side.product}",
        "extraction_worker_port": 0,
        "extraction_users_at_once": _SLOTS,
        "extraction_asks_per_topic": 1,
        "extraction_samples": 1,
        "extraction_max_tokens": _ANSWER_TOKENS,
        "extraction_temperature": _TEMPERATURE,
        "extraction_concurrency": 32,
    }
    return ExtractionWorkerSettings(**values)


def _bank(questions: Sequence[str]) -> Bank:
    topics = [
        {
            "topic": f"topic{number}",
            "title": f"Topic {number}",
            "cues": ["like"],
            "questions": [
                {"id": f"question{number}", "paraphrases": [text, f"{text} Please."], "answer_schema": _SCHEMA}
            ],
        }
        for number, text in enumerate(questions)
    ]
    return Bank.model_validate({"name": "bench", "version": "1", "topics": topics})


# ----- the peers


async def _tune(engines: Engines, models: Sequence[str], questions: int) -> list[int]:
    """Return numbers of callers at once, the best for stock vLLM first; also brings its adapters into host memory."""
    rates: dict[int, float] = {}
    choices = sorted({_SEATS // 2, _SEATS, 2 * _SEATS, len(models) * questions})
    await _stock(engines, engines.stock, models, _questions(1, round_="warm"), callers=_SEATS)
    for callers in choices:
        asked = _questions(questions, round_=f"try {callers}")
        rates[callers] = 60 * len(models) / await _stock(engines, engines.stock, models, asked, callers=callers)
        tell(f"stock vLLM, {callers} callers: {rates[callers]:.1f} users a minute")
    return sorted(choices, key=lambda callers: -rates[callers])


async def _stock(
    engines: Engines, side: Side, models: Sequence[str], questions: Sequence[str], *, callers: int
) -> float:
    """Return the seconds that all requests take, one user after the other in turn, from so many callers."""
    format_ = {"type": "json_schema", "json_schema": {"name": "answers", "schema": _SCHEMA}}
    requests = iter(
        [
            {
                "model": model,
                "messages": [{"role": "user", "content": question}],
                "n": 1,
                "max_tokens": _ANSWER_TOKENS,
                "temperature": _TEMPERATURE,
                "seed": 1000 * number,
                "response_format": format_,
            }
            for number, question in enumerate(questions)
            for model in models
        ]
    )
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=2.0)
    async with (
        engines.only(side),
        httpx.AsyncClient(base_url=side.url, timeout=1800, trust_env=False, limits=limits) as http,
    ):

        async def call() -> None:
            for request in requests:
                answer = await http.post("/v1/chat/completions", json=request)
                if answer.status_code != 200:
                    raise RuntimeError(f"a request failed, so nothing was measured: {answer.text[:300]}")

        began = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        return time.perf_counter() - began


def _loop(engines: Engines, models: Sequence[str], questions: Sequence[str]) -> float:
    """Return the seconds that the loop takes, without its imports and without loading the base."""
    folder = engines.shelf.stock_directory
    given = {
        "base": json.loads((folder / models[0] / "adapter_config.json").read_text())["base_model_name_or_path"],
        "adapters": [str(folder / model) for model in models],
        "questions": list(questions),
        "tokens": _ANSWER_TOKENS,
        "temperature": _TEMPERATURE,
        "threads": sorted({1, os.cpu_count() or 1}),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _LOOP, json.dumps(given)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"the loop failed: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])
