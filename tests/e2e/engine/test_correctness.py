"""The real engine answers like PEFT, in any batch; and the base like the base (vllm-project/vllm#48421).

All adapters hold a slot at once, so stock vLLM would give the base's tokens the last one's delta.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 2e-4  # of a log-probability, absolute; float32 on both sides
ANSWER_TOKENS = 16
PROMPTS = (
    "The capital of France is",
    "My favourite food has always been",
    "Yesterday I went to the market and bought apples, pears and",
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model says to a prompt: its greedy tokens, and the log-probability of every prompt token but the first."""

    tokens: list[int]
    prompt_logprobs: list[float]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Answers computed by PEFT in float32; `adapter` None is the base model."""

    answers: dict[tuple[int | None, str], Answer]

    def of(self, adapter: int | None, prompt: str) -> Answer:
        return self.answers[adapter, prompt]


@pytest.fixture(scope="session")
def reference(base_directory: Path, adapter_directories: list[Path]) -> Iterator[Reference]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(base_directory)
    base = AutoModelForCausalLM.from_pretrained(base_directory, dtype=torch.float32).eval()
    model = PeftModel.from_pretrained(base, adapter_directories[0], adapter_name="0")
    for number, directory in enumerate(adapter_directories[1:], start=1):
        model.load_adapter(directory, adapter_name=str(number))
    answers = {}
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        for number in range(len(adapter_directories)):
            model.set_adapter(str(number))
            answers[number, prompt] = compute(model, ids)
        with model.disable_adapter():
            answers[None, prompt] = compute(model, ids)
    yield Reference(answers=answers)
    torch.set_num_threads(threads)


def compute(model: Any, ids: torch.Tensor) -> Answer:
    with torch.no_grad():
        logprobs = torch.log_softmax(model(ids).logits[0, :-1], dim=-1)
        grown = model.generate(ids, max_new_tokens=ANSWER_TOKENS, min_new_tokens=ANSWER_TOKENS, do_sample=False)
    scores = logprobs.gather(1, ids[0, 1:, None]).squeeze(1)
    return Answer(tokens=grown[0, ids.shape[1] :].tolist(), prompt_logprobs=scores.tolist())


Ask = Callable[[str, str], Awaitable[Answer]]


@pytest.fixture
def ask(engine: httpx.AsyncClient) -> Ask:
    """Ask the engine for greedy tokens and for the prompt's log-probabilities, in one request."""

    async def ask(model: str, prompt: str) -> Answer:
        body = {
            "model": model,
            "prompt": prompt,
            "temperature": 0,
            "max_tokens": ANSWER_TOKENS,
            "min_tokens": ANSWER_TOKENS,
            "return_token_ids": True,
            "prompt_logprobs": 0,
        }
        response = await engine.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        choice = response.json()["choices"][0]
        scores = [next(iter(token.values()))["logprob"] for token in choice["prompt_logprobs"][1:]]
        return Answer(tokens=choice["token_ids"], prompt_logprobs=scores)

    return ask


@pytest.fixture
def ask_together(ask: Ask) -> Callable[[list[tuple[str, str]]], Awaitable[list[Answer]]]:
    """Ask (model, prompt) pairs at once, so that the engine computes them in the same batches."""

    async def ask_together(questions: list[tuple[str, str]]) -> list[Answer]:
        return list(await asyncio.gather(*(ask(model, prompt) for model, prompt in questions)))

    return ask_together


def assert_like(answer: Answer, expected: Answer) -> None:
    assert answer.tokens == expected.tokens
    assert answer.prompt_logprobs == pytest.approx(expected.prompt_logprobs, abs=TOLERANCE)


Together = Callable[[list[tuple[str, str]]], Awaitable[list[Answer]]]


def test_the_references_are_all_different(reference: Reference) -> None:
    """Otherwise the tests below would prove little."""
    for prompt in PROMPTS:
        answers = [tuple(reference.of(adapter, prompt).tokens) for adapter in (None, 0, 1, 2, 3)]
        assert len(set(answers)) == 5


async def test_each_adapter_alone_answers_like_peft(ask: Ask, versions: list[str], reference: Reference) -> None:
    for adapter, version_id in enumerate(versions):
        for prompt in PROMPTS:
            assert_like(await ask(version_id, prompt), reference.of(adapter, prompt))


async def test_the_base_alone_answers_like_transformers(ask: Ask, reference: Reference) -> None:
    for prompt in PROMPTS:
        assert_like(await ask("base", prompt), reference.of(None, prompt))


async def test_adapters_and_the_base_in_one_batch_answer_as_they_do_alone(
    ask_together: Together, versions: list[str], reference: Reference
) -> None:
    models: list[tuple[int | None, str]] = [(None, "base"), *enumerate(versions), (None, "base")]
    questions = [(adapter, name, prompt) for prompt in PROMPTS for adapter, name in models]
    answers = await ask_together([(name, prompt) for _, name, prompt in questions])

    for (adapter, _, prompt), answer in zip(questions, answers, strict=True):
        assert_like(answer, reference.of(adapter, prompt))


async def test_two_adapters_never_answer_for_each_other(
    ask_together: Together, versions: list[str], reference: Reference
) -> None:
    prompt = PROMPTS[0]
    for turn in range(4):
        order = [(turn + step) % len(versions) for step in range(2 * len(versions))]
        answers = await ask_together([(versions[adapter], prompt) for adapter in order])
        assert [answer.tokens for answer in answers] == [reference.of(adapter, prompt).tokens for adapter in order]


async def test_the_engine_survives_batched_prompt_logprobs(engine: httpx.AsyncClient, ask_together: Together) -> None:
    """Stock vLLM on a CPU dies here, because it wraps lm_head."""
    await ask_together([("base", prompt) for prompt in PROMPTS])

    assert (await engine.get("/lorry/ready")).status_code == 200


async def test_a_streamed_chat_is_the_adapters_own(engine: httpx.AsyncClient, versions: list[str]) -> None:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "What did you do yesterday?"}],
        "temperature": 0,
        "max_tokens": 12,
    }
    whole = await engine.post("/v1/chat/completions", json={**body, "model": versions[1]})
    other = await engine.post("/v1/chat/completions", json={**body, "model": versions[2]})
    streamed = ""
    async with engine.stream("POST", "/v1/chat/completions", json={**body, "model": versions[1], "stream": True}) as r:
        async for line in r.aiter_lines():
            if line.startswith("data: {"):
                streamed += httpx.Response(200, content=line[6:]).json()["choices"][0]["delta"].get("content") or ""

    assert streamed == whole.json()["choices"][0]["message"]["content"]
    assert streamed != other.json()["choices"][0]["message"]["content"]
    assert whole.json()["model"] == versions[1]


async def test_a_seed_gives_the_same_answer_however_a_long_prompt_is_split(
    engine: httpx.AsyncClient, versions: list[str]
) -> None:
    """Stock vLLM's CPU engine dies of the first such prompt: what its parts draw in vain cannot be taken back."""

    async def answer(seed: int) -> str:
        words = " ".join(f"{seed} and {number}" for number in range(90))  # more tokens than a step computes
        body = {"model": versions[0], "prompt": words, "seed": seed, "temperature": 1.0, "max_tokens": 6}
        response = await engine.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        usage = response.json()["usage"]
        assert usage["prompt_tokens"] > 300
        return str(response.json()["choices"][0]["text"])

    alone = [await answer(seed) for seed in range(4)]
    assert len(set(alone)) > 1
    assert list(await asyncio.gather(*(answer(seed) for seed in range(4)))) == alone
