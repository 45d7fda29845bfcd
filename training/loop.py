"""One user's training, step by step: forward, backward, clip, move; look at the watched replies; keep checkpoints.

Nothing here depends on the clock or on chance outside torch's generator, whose state is part of a checkpoint: a
training that goes on from one takes the same steps as one that was never interrupted, bit by bit.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from training.checkpoints import Checkpoint, CheckpointFolder
from training.config import TrainingConfig
from training.errors import LossNotFinite, TrainingPaused
from training.loss import LabelStates, collate, cross_entropy, label_states, projected_losses
from training.objectives.teacher import batches_of_similar_length
from training.stopping import Watch, look_steps
from training.task import Minimised, Task
from training.tokens import TokenisedExample

_WATCH_TOKENS = 1024
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """What is known after a step: losses in nats per completion token, seconds of wall clock over all attempts.

    `validation_loss` is the latest look at the watched replies, None before the first; `checkpoint_step` the step from
    which the training would go on if it was killed now, None when it would begin anew.
    """

    step: int
    of: int
    loss: float
    validation_loss: float | None
    seconds: float
    eta_seconds: float
    checkpoint_step: int | None


OnProgress = Callable[[TrainingProgress], None]


@dataclass(kw_only=True)
class Course:
    """What a training has come through: losses of its steps, looks, seconds of all attempts, what was not written."""

    watch: Watch
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    unwritten_checkpoints: int = 0
    resumed_from: int | None = None


class TrainingLoop:
    """The steps of one user's adapter, which is on `model` and the only part of it that can change."""

    def __init__(
        self, model: Any, task: Task, minimised: Minimised, *, config: TrainingConfig, pad_token_id: int
    ) -> None:
        self._model, self._task, self._minimised, self._config = model, task, minimised, config
        self._causal, self._pad_token_id = model.get_base_model(), pad_token_id
        self._device = str(self._causal.device)
        self._parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self._optimiser = torch.optim.AdamW(
            self._parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._best: dict[str, torch.Tensor] = {}
        self.course = Course(watch=Watch(patience=config.patience))

    def run(
        self,
        *,
        on_progress: OnProgress | None = None,
        checkpoints: CheckpointFolder | None = None,
        checkpoint_seconds: float = 60.0,
    ) -> Course:
        """Take all steps, from the newest checkpoint on, and leave the best weights on the model.

        Raises:
            LossNotFinite: at the first step whose loss or gradient is infinite or not a number.
            TrainingPaused: when `on_progress` raised it; a checkpoint of that step was written first.
        """
        saved_step = self._resume(checkpoints)
        looks = set(look_steps(len(self._task.plan), self._task.looks(self._config.validations)))
        before = self.course.seconds
        started = saved_at = time.monotonic()
        self._train_mode()
        while len(self.course.losses) < len(self._task.plan) and not self.course.watch.enough:
            step = self._step()
            if step in looks:
                self._look(step)
            self.course.seconds = before + time.monotonic() - started
            if checkpoints is not None and time.monotonic() - saved_at >= checkpoint_seconds:
                saved_step, saved_at = self._save(checkpoints) or saved_step, time.monotonic()
            try:
                if on_progress is not None:
                    on_progress(self._progress(saved_step))
            except TrainingPaused:
                if checkpoints is not None and saved_step != step:
                    self._save(checkpoints)
                raise
        self._take_best()
        return self.course

    def _step(self) -> int:
        """Take the next step and return its number, from 1 on."""
        number = len(self.course.losses)
        own, general = self._task.plan[number], self._task.replay_plan[number]
        rows = [*(self._task.rows[index] for index in own), *self._general_rows(general)]
        states = label_states(self._causal, self._collate(rows))
        loss = self._loss(states, own, general)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._config.max_gradient_norm)
        value = float(loss.detach())
        if not math.isfinite(value) or not math.isfinite(float(norm)):
            raise LossNotFinite(
                f"the loss was {value} and its gradient {float(norm)} at step {number + 1}: lower the learning rate",
                field="learning_rate",
            )
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.learning_rate * rate_share(
                number, steps=len(self._task.plan), warmup_share=self._config.warmup_share
            )
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return len(self.course.losses)

    def _loss(self, states: LabelStates, own: Sequence[int], general: Sequence[int]) -> torch.Tensor:
        """Return what is minimised, and note the user's part of it."""
        n_own = int((states.rows < len(own)).sum())
        mine = projected_losses(
            self._causal, states.hidden[:n_own], self._minimised.own(own, states.targets[:n_own])
        ).mean()
        self.course.losses.append(float(mine.detach()))
        if not general:
            return mine
        replayed = projected_losses(
            self._causal, states.hidden[n_own:], self._minimised.replayed(general, self._device)
        ).mean()
        return mine + self._config.replay_weight * replayed

    def _look(self, step: int) -> None:
        """Note the loss on the watched replies; keep the weights when it is the lowest so far."""
        total, count = 0.0, 0
        self._model.eval()
        lengths = [len(row.input_ids) for row in self._task.watched]
        for batch in batches_of_similar_length(lengths, max_tokens=_WATCH_TOKENS):
            with torch.no_grad():
                states = label_states(self._causal, self._collate([self._task.watched[index] for index in batch]))
                losses = projected_losses(self._causal, states.hidden, cross_entropy(states.targets))
            total, count = total + float(losses.double().sum()), count + losses.numel()
        self._train_mode()
        if self.course.watch.see(step, total / count):
            self._best = {name: each.detach().clone() for name, each in self._parameters.items()}

    def _take_best(self) -> None:
        best = self.course.watch.best_step
        if best is not None and best != len(self.course.losses):
            for name, parameter in self._parameters.items():
                parameter.data.copy_(self._best[name])

    def _train_mode(self) -> None:
        """Switch dropout and recomputing on where the configuration has them; a base's own dropout stays off."""
        self._model.train(self._config.dropout > 0 or self._config.gradient_checkpointing)

    def _general_rows(self, indices: Sequence[int]) -> list[TokenisedExample]:
        return [self._minimised.general.rows[index] for index in indices]

    def _collate(self, rows: Sequence[TokenisedExample]) -> dict[str, torch.Tensor]:
        tensors = collate(rows, pad_token_id=self._pad_token_id)
        return {key: tensor.to(self._device) for key, tensor in tensors.items()}

    def _progress(self, saved_step: int | None) -> TrainingProgress:
        tokens, done = self._task.tokens, len(self.course.losses)
        seconds_per_token = self.course.seconds / max(1, sum(tokens[:done]))
        looks = self.course.watch.looks
        return TrainingProgress(
            step=done,
            of=len(tokens),
            loss=self.course.losses[-1],
            validation_loss=looks[-1][1] if looks else None,
            seconds=self.course.seconds,
            eta_seconds=0.0 if self.course.watch.enough else seconds_per_token * sum(tokens[done:]),
            checkpoint_step=saved_step,
        )

    def _save(self, checkpoints: CheckpointFolder) -> int | None:
        """Write a checkpoint and return its step; None when the disk refused, which costs time and nothing else."""
        step = len(self.course.losses)
        try:
            checkpoints.save(Checkpoint(step=step, tensors=self._tensors(), state=self._state()))
        except OSError as exc:
            self.course.unwritten_checkpoints += 1
            _log.warning("a checkpoint could not be written (%s); the training goes on without it", exc.strerror or exc)
            return None
        return step

    def _tensors(self) -> dict[str, torch.Tensor]:
        found = {"random": torch.get_rng_state()}
        if self._device.startswith("cuda"):
            found["random.cuda"] = torch.cuda.get_rng_state(self._device)
        for name, parameter in self._parameters.items():
            moments = self._optimiser.state[parameter]
            found[f"weight.{name}"] = parameter.detach()
            found |= {f"{key}.{name}": value for key, value in moments.items()}
        return found | {f"best.{name}": each for name, each in self._best.items()}

    def _state(self) -> dict[str, Any]:
        course = self.course
        return {"losses": course.losses, "looks": course.watch.looks, "seconds": course.seconds}

    def _resume(self, checkpoints: CheckpointFolder | None) -> int | None:
        """Take up the newest checkpoint and return its step; None when there is none."""
        checkpoint = checkpoints.load() if checkpoints is not None else None
        if checkpoint is None:
            return None
        tensors, state = checkpoint.tensors, checkpoint.state
        for name, parameter in self._parameters.items():
            parameter.data.copy_(tensors[f"weight.{name}"])
            self._optimiser.state[parameter] = {
                key: tensors[f"{key}.{name}"].to(parameter.device if key != "step" else "cpu")
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
            if f"best.{name}" in tensors:
                self._best[name] = tensors[f"best.{name}"].to(parameter.device)
        torch.set_rng_state(tensors["random"])
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self._device)
        self.course.losses = list(state["losses"])
        self.course.watch.looks = [(step, loss) for step, loss in state["looks"]]
        self.course.seconds = state["seconds"]
        self.course.resumed_from = checkpoint.step
        return checkpoint.step


def rate_share(number: int, *, steps: int, warmup_share: float) -> float:
    """Return the share of the peak learning rate at step `number`, from 0 on: up in a line, then down to nothing."""
    warmup = math.ceil(warmup_share * steps)
    if number < warmup:
        return (number + 1) / warmup
    return (steps - number) / (steps - warmup + 1) if warmup else (steps - number) / steps
