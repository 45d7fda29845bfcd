from __future__ import annotations

import pytest
import torch

from training.config import resolve
from training.evaluation import Evaluator
from training.examples import Example, Message
from training.loss import collate, label_losses, shared_prefix
from training.qlora import fresh_adapter
from training.tokens import TokenisedExample, tokenise
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


def rows_of(trainer: Trainer, *texts: str) -> list[TokenisedExample]:
    found = [tokenise(example(completion=text), trainer.tokenizer, max_length=200) for text in texts]
    return [row for row in found if row is not None]


def gradients(trainer: Trainer, batches: list[list[TokenisedExample]]) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Every labelled token's loss, and what all of them together ask of an adapter that is not silent."""
    with fresh_adapter(trainer._base, resolve(arguments={"rank": 4}).training) as model:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        found: list[float] = []
        for batch in batches:
            losses, _ = label_losses(model.get_base_model(), collate(batch, pad_token_id=2))
            losses.sum().backward()
            found += losses.tolist()
        return found, {name: each.grad.clone() for name, each in model.named_parameters() if each.requires_grad}


def test_a_beginning_that_rows_share_is_computed_once_and_changes_nothing(trainer: Trainer) -> None:
    rows = rows_of(trainer, "yes", "I like trees, and tea, and long walks over the hills", "no, never")
    assert shared_prefix(collate(rows, pad_token_id=2)) > 40
    together, alone = gradients(trainer, [rows]), gradients(trainer, [[row] for row in rows])
    assert together[0] == pytest.approx(alone[0], abs=1e-4)
    for name, gradient in alone[1].items():
        assert torch.allclose(together[1][name], gradient, atol=1e-4 * float(gradient.abs().max())), name


def test_a_shared_beginning_ends_where_rows_differ_or_a_label_is_predicted() -> None:
    def shared(*rows: tuple[list[int], int]) -> int:
        given = [TokenisedExample(input_ids=tuple(ids), prompt_length=length) for ids, length in rows]
        return shared_prefix(collate(given, pad_token_id=0))

    opening = list(range(1, 31))
    assert shared(([*opening, 40, 41], 31), ([*opening, 50, 51, 52], 32)) == 30
    assert shared((opening, 25), (opening, 28)) == 24  # the 25th token predicts the first label
    assert shared((opening, 25)) == 0  # nobody to share with
    assert shared(([*opening[:10], 40], 10), ([*opening[:10], 50], 10)) == 0  # not worth it
    assert shared((opening, 0), (opening, 25)) == 0
