from __future__ import annotations

import torch

from training.evaluation import Evaluator
from training.examples import Example, Message
from training.loss import collate, label_losses
from training.tokens import tokenise
from training.trainer import Trainer

TURNS = (
    Message(role="user", content="Hello there, who are you?"),
    Message(role="assistant", content="just me"),
    Message(role="user", content="And what do you like?"),
)


def example(prompt: tuple[Message, ...] = TURNS, completion: str = "I like trees,\nand tea!") -> Example:
    return Example(kind="reply", prompt=prompt, completion=completion, transcript_id="t", turn_index=1)


def test_prompts_are_what_the_stock_template_renders_for_the_same_messages(trainer: Trainer) -> None:
    tokens = tokenise(example(), trainer.tokenizer, max_length=200)
    assert tokens is not None
    served = trainer.tokenizer.apply_chat_template(
        [{"role": message.role, "content": message.content} for message in TURNS],
        add_generation_prompt=True, tokenize=True, return_dict=True,
    )["input_ids"]  # fmt: skip
    assert list(tokens.input_ids[: tokens.prompt_length]) == list(served)


def test_the_loss_counts_the_answer_and_the_end_of_turn_only(trainer: Trainer) -> None:
    tokens = tokenise(example(), trainer.tokenizer, max_length=200)
    assert tokens is not None
    counted = [label for label in tokens.labels if label != -100]
    assert trainer.tokenizer.decode(counted) == "I like trees,\nand tea!<|im_end|>"
    assert len(tokens.labels) == len(tokens.input_ids)
    assert tokens.n_labels == len(counted)


def test_long_prompts_lose_their_oldest_turns_and_answers_are_never_cut(trainer: Trainer) -> None:
    whole = tokenise(example(), trainer.tokenizer, max_length=200)
    last = tokenise(example(prompt=TURNS[-1:]), trainer.tokenizer, max_length=200)
    assert whole is not None
    assert last is not None
    assert tokenise(example(), trainer.tokenizer, max_length=len(whole.input_ids) - 1) == last
    assert tokenise(example(), trainer.tokenizer, max_length=len(last.input_ids) - 1) is None


def test_the_loss_at_labels_equals_the_loss_from_all_logits(evaluator: Evaluator) -> None:
    texts = ("yes", "I like trees, and tea, and long walks over the hills")
    rows = [tokenise(example(completion=text), evaluator.tokenizer, max_length=200) for text in texts]
    batch = collate([row for row in rows if row is not None], pad_token_id=2)
    with torch.no_grad():
        losses, owners = label_losses(evaluator._base, batch)
        logits = evaluator._base(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    shifted = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), batch["labels"][:, 1:], ignore_index=-100, reduction="none"
    )
    for row in range(2):
        expected = shifted[row][batch["labels"][row, 1:] != -100]
        assert torch.allclose(losses[owners == row], expected, atol=1e-3)
