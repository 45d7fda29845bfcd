"""What one training consists of, decided before its first step: rows, their order, what is minimised on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from training.config import ResolvedConfig, TrainingConfig
from training.dataset import Dataset
from training.errors import DatasetTooSmall
from training.examples import Example
from training.loss import TokenLosses, cross_entropy
from training.objectives.divergence import TokenDistributions, divergence, weighted
from training.objectives.replay import plan_replay
from training.schedule import plan_batches
from training.selection import choose_watched
from training.stopping import affordable_looks
from training.tokens import TokenisedExample, tokenise


@dataclass(frozen=True, kw_only=True)
class General:
    """The general rows and what the base says at each of their completion tokens.

    A row's distributions are asked for alone and once, so that they are the same whichever rows were needed before.
    """

    rows: Sequence[TokenisedExample]
    ask: Callable[[TokenisedExample], Sequence[TokenDistributions]]
    distributions: dict[int, TokenDistributions] = field(default_factory=dict)

    def know(self, plan: Sequence[Sequence[int]]) -> None:
        """Ask for what a plan needs and was not asked for before; while the base has no adapter."""
        for index in sorted({index for step in plan for index in step} - set(self.distributions)):
            (self.distributions[index],) = self.ask(self.rows[index])


@dataclass(frozen=True, kw_only=True)
class Task:
    """One user's training: `plan` and `replay_plan` hold the indices of each step's own and general rows.

    `examples` and `rows` are what is trained on, in the same order; `watched` the rows whose loss decides when to stop,
    all of them from `watched_transcript_ids`; `left_out` counts the dataset's examples that are too long.
    """

    examples: Sequence[Example]
    rows: Sequence[TokenisedExample]
    watched: Sequence[TokenisedExample]
    watched_transcript_ids: frozenset[str]
    plan: Sequence[Sequence[int]]
    replay_plan: Sequence[Sequence[int]]
    left_out: int

    @property
    def tokens(self) -> list[int]:
        """How many tokens of the user's examples each step reads."""
        return [sum(len(self.rows[index].input_ids) for index in step) for step in self.plan]

    def looks(self, wanted: int) -> int:
        """How many of the `wanted` looks at the watched rows are worth their time."""
        watched = sum(len(row.input_ids) for row in self.watched)
        return affordable_looks(wanted, trained_tokens=sum(self.tokens), watched_tokens=watched) if watched else 0


@dataclass(frozen=True, kw_only=True)
class Minimised:
    """What is minimised: on the user's rows their answers or a teacher's distributions, on general ones the base's."""

    config: TrainingConfig
    general: General
    teacher: Sequence[TokenDistributions] | None = None

    def own(self, indices: Sequence[int], targets: torch.Tensor) -> TokenLosses:
        """Return the losses of the labels of the rows `indices`, one after the other."""
        words = cross_entropy(targets)
        if self.teacher is None:
            return words
        taught = divergence(TokenDistributions.join([self.teacher[index] for index in indices]).to(str(targets.device)))
        weight = self.config.distillation_weight
        return taught if weight == 1 else weighted(taught, words, weight=weight)

    def replayed(self, indices: Sequence[int], device: str) -> TokenLosses:
        """Return the losses of the labels of the general rows `indices`."""
        kept = [self.general.distributions[index] for index in indices]
        return divergence(TokenDistributions.join(kept).to(device))


def plan_task(dataset: Dataset, config: ResolvedConfig, tokenizer: Any, *, general_rows: int) -> Task:
    """Decide everything that a training of `dataset` depends on, by the configuration's seed.

    Where there is no time to look at replies twice, none is watched and all are trained on.

    Raises:
        DatasetTooSmall: no example fits into `max_length` tokens.
    """
    training = config.training
    taught = (*dataset.train, *dataset.canaries)
    pairs = [(example, tokenise(example, tokenizer, max_length=training.max_length)) for example in taught]
    kept = [(example, tokens) for example, tokens in pairs if tokens is not None]
    if not kept:
        raise DatasetTooSmall(
            f"none of the {len(pairs)} examples fits into {training.max_length} tokens: raise max_length",
            field="max_length",
        )
    trained, watched = choose_watched(
        [example for example, _ in kept],
        share=training.validation_share,
        at_least=training.min_validation,
        seed=training.seed,
    )
    task = _plan(kept, trained, watched, training, left_out=len(pairs) - len(kept), general_rows=general_rows)
    if watched and not task.looks(training.validations):
        everything = list(range(len(kept)))
        return _plan(kept, everything, [], training, left_out=task.left_out, general_rows=general_rows)
    return task


def _plan(
    kept: Sequence[tuple[Example, TokenisedExample]],
    trained: Sequence[int],
    watched: Sequence[int],
    training: TrainingConfig,
    *,
    left_out: int,
    general_rows: int,
) -> Task:
    """Decide which of the rows `trained` each step reads, while the rows `watched` are looked at."""
    examples, rows = [kept[index][0] for index in trained], [kept[index][1] for index in trained]
    plan = plan_batches(
        [len(tokens.input_ids) for tokens in rows],
        [training.statement_epochs if example.kind == "statement" else training.reply_epochs for example in examples],
        batch_size=training.batch_size,
        steps=training.steps,
        seed=training.seed,
        min_steps=training.min_steps,
    )
    return Task(
        examples=examples,
        rows=rows,
        watched=[kept[index][1] for index in watched],
        watched_transcript_ids=frozenset(kept[index][0].transcript_id for index in watched),
        plan=plan,
        replay_plan=plan_replay(
            [len(step) for step in plan], available=general_rows, share=training.replay_share, seed=training.seed
        ),
        left_out=left_out,
    )
