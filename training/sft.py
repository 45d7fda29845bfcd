"""TRL's trainer, with the loss computed only where labels are and the order of examples fixed beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
from torch.utils.data import DataLoader, Sampler
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from training.config import TrainingConfig
from training.errors import LossNotFinite
from training.loss import label_losses
from training.tokens import TokenisedExample

OnStep = Callable[[int, int, float], None]


def run_sft(
    model: Any,
    tokenizer: Any,
    examples: Sequence[TokenisedExample],
    *,
    plan: Sequence[list[int]],
    config: TrainingConfig,
    scratch: Path,
    on_step: OnStep | None = None,
) -> list[float]:
    """Train the adapter on `model` by the planned batches; return each step's loss in nats per completion token.

    Args:
        model: a PEFT model whose only trainable weights are the adapter's.
        tokenizer: the base model's.
        examples: what `plan` indexes.
        plan: the indices of each step's examples.
        config: learning rate, schedule and regularisation.
        scratch: a directory for the trainer's own use; nothing there is needed afterwards.
        on_step: told (step, of, loss) after each step.

    Raises:
        LossNotFinite: at the first step whose loss is infinite or not a number.
    """
    first_weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    trainer = _PlannedTrainer(
        plan=plan,
        on_step=on_step,
        model=model,
        args=_arguments(config, steps=len(plan), scratch=scratch, device=model.device.type),
        train_dataset=datasets.Dataset.from_list(
            [{"input_ids": list(example.input_ids), "labels": example.labels} for example in examples]
        ),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = first_weights[name]  # TRL rounds the weights of a QLoRA to bfloat16
    trainer.train()
    return trainer.step_losses


class _PlannedTrainer(SFTTrainer):  # type: ignore[misc]
    def __init__(self, *, plan: Sequence[list[int]], on_step: OnStep | None, **arguments: Any) -> None:
        super().__init__(callbacks=[_Report(self, len(plan), on_step)], **arguments)
        self.plan = plan
        self.step_losses: list[float] = []

    def get_train_dataloader(self) -> Any:
        dataset = self._remove_unused_columns(self.train_dataset, description="training")
        return DataLoader(dataset, batch_sampler=_Planned(self.plan), collate_fn=self.data_collator)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        losses, _ = label_losses(model.get_base_model(), inputs)
        loss = losses.mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise LossNotFinite(
                f"the loss was {value} at step {len(self.step_losses) + 1}: lower the learning rate",
                field="learning_rate",
            )
        self.step_losses.append(value)
        return loss


class _Planned(Sampler):  # type: ignore[misc]
    def __init__(self, plan: Sequence[list[int]]) -> None:
        self._plan = plan

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._plan)

    def __len__(self) -> int:
        return len(self._plan)


class _Report(TrainerCallback):  # type: ignore[misc]
    def __init__(self, trainer: _PlannedTrainer, total: int, on_step: OnStep | None) -> None:
        self._trainer, self._total, self._on_step = trainer, total, on_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._on_step is not None:
            self._on_step(state.global_step, self._total, self._trainer.step_losses[-1])


def _arguments(config: TrainingConfig, *, steps: int, scratch: Path, device: str) -> SFTConfig:
    return SFTConfig(
        output_dir=str(scratch),
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(config.warmup_share * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_gradient_norm,
        optim="adamw_torch",
        seed=config.seed,
        data_seed=config.seed,
        bf16=False,  # the default is True; the base computes in its own dtype, the adapter in float32
        use_cpu=device == "cpu",
        gradient_checkpointing=config.gradient_checkpointing,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
