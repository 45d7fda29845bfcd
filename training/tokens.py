"""Examples as token ids, exactly as the engine will see them.

The base model's own chat template renders every prompt, with the generation prompt at its end and no system
message of ours, so that what was trained is what vLLM renders for the same `messages`. The completion is
tokenised on its own and ends with the template's end of turn: that is what the engine samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from training.examples import Example, Message


@dataclass(frozen=True, kw_only=True)
class TokenisedExample:
    """Token ids of prompt and completion in one row; the loss counts from `prompt_length` on."""

    input_ids: tuple[int, ...]
    prompt_length: int

    @property
    def labels(self) -> list[int]:
        """The ids with −100 over the prompt."""
        return [-100] * self.prompt_length + list(self.input_ids[self.prompt_length :])

    @property
    def n_labels(self) -> int:
        """How many tokens the loss counts."""
        return len(self.input_ids) - self.prompt_length


def tokenise(example: Example, tokenizer: Any, *, max_length: int) -> TokenisedExample | None:
    """Return the example in at most `max_length` tokens; None when its last message and answer alone are longer.

    Prompts that are too long lose their oldest messages; a completion is never cut, since a cut one would teach
    the model to stop in mid-sentence.
    """
    prompt = list(example.prompt)
    while prompt:
        prompt_text = _render(prompt, tokenizer, completion=None)
        prompt_ids = tokenizer(prompt_text, add_special_tokens=False)["input_ids"]
        completion = _completion_text(prompt, prompt_text, example.completion, tokenizer)
        ids = (*prompt_ids, *tokenizer(completion, add_special_tokens=False)["input_ids"])
        if len(ids) <= max_length:
            return TokenisedExample(input_ids=ids, prompt_length=len(prompt_ids))
        prompt = _without_oldest(prompt)
    return None


def tokenise_with_context(
    example: Example, context: str, tokenizer: Any, *, student: TokenisedExample
) -> TokenisedExample:
    """Return the example below `context`, with exactly the completion tokens of `student`.

    The context is a system message where the chat template takes one, and else stands before the first message.
    """
    messages = [{"role": message.role, "content": message.content} for message in example.prompt]
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "system", "content": context}, *messages], tokenize=False, add_generation_prompt=True
        )
    except TemplateError:
        first = {**messages[0], "content": f"{context}\n\n{messages[0]['content']}"}
        text = tokenizer.apply_chat_template([first, *messages[1:]], tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return TokenisedExample(
        input_ids=(*prompt_ids, *student.input_ids[student.prompt_length :]), prompt_length=len(prompt_ids)
    )


def _render(prompt: list[Message], tokenizer: Any, *, completion: str | None) -> str:
    messages = [{"role": message.role, "content": message.content} for message in prompt]
    if completion is not None:
        messages.append({"role": "assistant", "content": completion})
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=completion is None)
    return text


def _completion_text(prompt: list[Message], prompt_text: str, completion: str, tokenizer: Any) -> str:
    """What follows the prompt, up to and with the end-of-turn token."""
    end: str = tokenizer.eos_token
    whole = _render(prompt, tokenizer, completion=completion)
    if not whole.startswith(prompt_text):  # the template writes past turns in another way than the current one
        return completion + end
    before, found, _ = whole[len(prompt_text) :].partition(end)
    return before + end if found else completion + end


def _without_oldest(prompt: list[Message]) -> list[Message]:
    """Drop the first message and all up to the next ``user`` message, which must come first."""
    rest = prompt[1:]
    while rest and rest[0].role != "user":
        rest = rest[1:]
    return rest
