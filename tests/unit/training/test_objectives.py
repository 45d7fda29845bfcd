"""Distributions in few numbers, the loss that is computed in pieces, and the general examples."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.loss import TokenLosses, cross_entropy, projected_losses
from training.objectives.divergence import TokenDistributions, divergence, weighted
from training.objectives.replay import plan_replay, replay_examples
from training.objectives.teacher import batches_of_similar_length

VOCABULARY, HIDDEN, LABELS = 50, 8, 23


def logits(seed: int, *, rows: int = LABELS) -> torch.Tensor:
    return 3 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def whole_divergence(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    p, q = teacher.double().log_softmax(-1), student.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def measured(teacher: torch.Tensor, student: torch.Tensor, *, k: int) -> torch.Tensor:
    target = TokenDistributions.of_logits(teacher, k=k)
    return divergence(target)(student, slice(0, len(student)))


def test_with_all_tokens_kept_the_divergence_is_the_whole_one() -> None:
    expected = whole_divergence(logits(1), logits(2))
    assert torch.allclose(measured(logits(1), logits(2), k=VOCABULARY).double(), expected, atol=1e-5)
    assert torch.allclose(measured(logits(1), logits(2), k=0).double(), expected, atol=1e-5)


@pytest.mark.parametrize("k", [1, 5, 20, VOCABULARY - 1])
def test_with_fewer_tokens_kept_it_is_never_larger_and_grows_with_them(k: int) -> None:
    fewer, more = (measured(logits(1), logits(2), k=number) for number in (k, k + 1))
    assert (fewer <= whole_divergence(logits(1), logits(2)) + 1e-5).all()
    assert (fewer <= more + 1e-5).all()
    assert (fewer >= -1e-6).all()


@pytest.mark.parametrize("k", [0, 1, 7])
def test_a_model_does_not_diverge_from_itself_and_gets_no_gradient(k: int) -> None:
    student = logits(1).requires_grad_()
    losses = measured(logits(1), student, k=k)
    losses.sum().backward()
    assert losses.abs().max() < 1e-5
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-5


def test_a_certain_teacher_teaches_its_word() -> None:
    teacher = torch.full((2, VOCABULARY), -torch.inf)
    teacher[0, 3] = teacher[1, 7] = 0.0
    student = logits(2, rows=2).requires_grad_()
    losses = measured(teacher, student, k=5)
    losses.sum().backward()
    expected = torch.nn.functional.cross_entropy(logits(2, rows=2), torch.tensor([3, 7]), reduction="none")
    assert torch.allclose(losses, expected, atol=1e-5)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def model(**config: Any) -> Any:
    """What `projected_losses` needs of a causal model: a frozen projection and a configuration."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=True).requires_grad_(False)
    return SimpleNamespace(get_output_embeddings=lambda: head, config=SimpleNamespace(**config))


TARGETS = torch.arange(LABELS) % VOCABULARY
OBJECTIVES: dict[str, TokenLosses] = {
    "words": cross_entropy(TARGETS),
    "teacher": divergence(TokenDistributions.of_logits(logits(4), k=6)),
    "both": weighted(divergence(TokenDistributions.of_logits(logits(4), k=6)), cross_entropy(TARGETS), weight=0.3),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("chunk_tokens", [1, 5, LABELS, 4 * LABELS])
def test_losses_in_pieces_have_the_values_and_gradients_of_the_whole(name: str, chunk_tokens: int) -> None:
    causal, losses = model(), OBJECTIVES[name]
    hidden = torch.randn(LABELS, HIDDEN, generator=torch.Generator().manual_seed(5))
    whole, pieces = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    weights = torch.linspace(0.5, 2, LABELS)
    expected = losses(causal.get_output_embeddings()(whole), slice(0, LABELS))
    found = projected_losses(causal, pieces, losses, chunk_tokens=chunk_tokens)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    assert torch.allclose(found, expected, atol=1e-5)
    assert whole.grad is not None
    assert pieces.grad is not None
    assert torch.allclose(pieces.grad, whole.grad, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(projected_losses(causal, hidden, losses, chunk_tokens=chunk_tokens), expected, atol=1e-5)


def test_logits_are_scaled_and_capped_as_the_model_says() -> None:
    hidden = torch.randn(LABELS, HIDDEN, generator=torch.Generator().manual_seed(5))
    plain = model().get_output_embeddings()(hidden)
    for config, expected in (
        ({"final_logit_softcapping": 2.0}, torch.tanh(plain / 2) * 2),
        ({"logit_scale": 0.25}, plain / 4),
        ({"logits_scaling": 8.0}, plain / 8),
    ):
        losses = projected_losses(model(**config), hidden, cross_entropy(TARGETS))
        wanted = torch.nn.functional.cross_entropy(expected, TARGETS, reduction="none")
        assert torch.allclose(losses, wanted, atol=1e-5), config


def test_no_labels_give_no_losses() -> None:
    hidden = torch.zeros(0, HIDDEN)
    assert projected_losses(model(), hidden, cross_entropy(TARGETS)).shape == (0,)


@given(sizes=st.lists(st.integers(1, 8), max_size=40), share=st.floats(0, 3, allow_nan=False), seed=st.integers(0, 9))
def test_general_examples_come_in_their_share_and_none_twice_before_all(
    sizes: list[int], share: float, seed: int
) -> None:
    plan = plan_replay(sizes, available=10, share=share, seed=seed)
    assert len(plan) == len(sizes)
    shown = [index for step in plan for index in step]
    assert abs(len(shown) - share * sum(sizes)) < 1 + 1e-6
    for start in range(0, len(shown), 10):
        once = shown[start : start + 10]
        assert len(set(once)) == len(once)
    assert plan == plan_replay(sizes, available=10, share=share, seed=seed)


def test_without_general_examples_or_a_share_none_come() -> None:
    assert plan_replay([4, 4], available=0, share=1.0, seed=0) == [[], []]
    assert plan_replay([4, 4], available=9, share=0.0, seed=0) == [[], []]


def test_the_general_examples_are_distinct_questions_with_answers() -> None:
    examples = replay_examples()
    assert len(examples) == 64
    assert len({example.prompt for example in examples}) == 64
    assert all(example.completion.strip() == example.completion != "" for example in examples)


@given(lengths=st.lists(st.integers(1, 50), max_size=30), limit=st.integers(1, 100))
def test_batches_hold_every_row_once_within_the_limit(lengths: list[int], limit: int) -> None:
    batches = batches_of_similar_length(lengths, max_tokens=limit)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= limit
