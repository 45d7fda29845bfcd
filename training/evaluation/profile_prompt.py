"""The strongest rival without weights: the plain base with what is known about the user written into its prompt.

Everything comes from the training part of the user's dataset, so that adapter and prompt know the same. There are
several layouts, because a small model reads facts badly and imitates examples well; the rival is the best of
them, chosen afterwards by the held-out loss itself, which no real deployment could do. See docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2.exceptions import TemplateError

from training.dataset import Dataset
from training.examples import Example, Message
from training.tokens import TokenisedExample

Layout = Literal["facts", "manner", "conversation"]
LAYOUTS: tuple[Layout, ...] = ("facts", "manner", "conversation")

_INTRODUCTION = (
    "You are not an assistant. You are the person described here, chatting casually with a stranger. Answer as this "
    "person would, in their own words, manner, spelling and length."
)
_FACTS = "What this person has said about themselves:"
_MANNER = "Messages that this person has written to others, which show how they write:"


@dataclass(frozen=True, kw_only=True)
class ProfilePrompt:
    """What is put before a user's prompt: a system message, and earlier exchanges in their manner."""

    layout: Layout
    system: str
    shots: tuple[Message, ...] = ()

    def before(self, row: TokenisedExample, example: Example, tokenizer: Any) -> TokenisedExample:
        """Return `example` with the profile before its prompt, and with the very completion tokens of `row`.

        Chat templates without a system message have the profile at the head of the first message instead.
        """
        chat = [{"role": each.role, "content": each.content} for each in (*self.shots, *example.prompt)]
        try:
            text = _render([{"role": "system", "content": self.system}, *chat], tokenizer)
        except TemplateError:
            text = _render([{**chat[0], "content": f"{self.system}\n\n{chat[0]['content']}"}, *chat[1:]], tokenizer)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        return TokenisedExample(input_ids=(*prompt, *row.input_ids[row.prompt_length :]), prompt_length=len(prompt))


def _render(messages: Sequence[dict[str, str]], tokenizer: Any) -> str:
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text


def write_profile(dataset: Dataset, tokenizer: Any, *, layout: Layout, budget_tokens: int) -> ProfilePrompt:
    """Return the profile of the dataset's user in at most about `budget_tokens` tokens.

    ``facts`` lists what the user said about themselves; ``manner`` adds messages of theirs, half of the budget each;
    ``conversation`` has the facts in a quarter of the budget and whole earlier exchanges, as turns of the chat, in the
    rest. Neither repeats itself, and both take examples in the dataset's own (seeded) order.
    """
    share = {"facts": 1.0, "manner": 0.5, "conversation": 0.25}[layout]
    facts = [*_within((line for line in _statements(dataset.train)), tokenizer, round(share * budget_tokens))]
    parts = [_INTRODUCTION]
    if facts:
        parts.append("\n".join([_FACTS, *(f"- {fact}" for fact in facts)]))
    rest = budget_tokens - round(share * budget_tokens)
    if layout == "manner":
        lines = [*_within((line for line in _replies(dataset.train)), tokenizer, rest)]
        if lines:
            parts.append("\n".join([_MANNER, *(f"- {line}" for line in lines)]))
    shots = tuple(_exchanges(dataset.train, tokenizer, rest)) if layout == "conversation" else ()
    return ProfilePrompt(layout=layout, system="\n\n".join(parts), shots=shots)


def _statements(examples: Sequence[Example]) -> Iterator[str]:
    """The user's sentences about themselves, once each, without the yes or no before them."""
    seen: set[str] = set()
    for example in examples:
        sentence = " ".join(example.completion.split())
        for word in ("Yes, ", "No, ", "Yes. ", "No. "):
            sentence = sentence.removeprefix(word)
        if example.kind == "statement" and sentence.lower() not in seen:
            seen.add(sentence.lower())
            yield sentence


def _replies(examples: Sequence[Example]) -> Iterator[str]:
    for example in examples:
        if example.kind == "reply":
            yield " ".join(example.completion.split())


def _within(lines: Iterator[str], tokenizer: Any, budget_tokens: int) -> Iterator[str]:
    """Lines until the budget is used up."""
    left = budget_tokens
    for line in lines:
        left -= len(tokenizer(line, add_special_tokens=False)["input_ids"]) + 3
        if left < 0:
            return
        yield line


def _exchanges(examples: Sequence[Example], tokenizer: Any, budget_tokens: int) -> Iterator[Message]:
    left = budget_tokens
    for example in examples:
        if example.kind != "reply":
            continue
        exchange = (example.prompt[-1], Message(role="assistant", content=example.completion))
        left -= sum(len(tokenizer(each.content, add_special_tokens=False)["input_ids"]) + 5 for each in exchange)
        if left < 0:
            return
        yield from exchange
