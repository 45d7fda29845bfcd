"""What training several users in one step could save at most: four users' steps one by one, and as one step.

The same rows of the same real people, forward and backward through one adapter. Giving each user's rows an adapter of
their own costs more than that: so what is measured is a bound. Optimiser and clipping, which are each user's own
anyway, are left out. Once as the trainer holds a base of this size on a CPU, expanded, and once in 4 bits, as it holds
larger ones.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.report import Measure, compare, report
from bench.training_resident import write_datasets
from training.base_models import DEFAULT_BASE, prepare_base
from training.config import ResolvedConfig, resolve
from training.dataset import Dataset
from training.loss import collate, cross_entropy, label_states, projected_losses
from training.qlora import fresh_adapter, load_quantised, load_tokenizer
from training.task import plan_task
from training.tokens import TokenisedExample

USERS = 4
STEPS = 4

Rows = Sequence[TokenisedExample]


def run(*, quick: bool) -> Path:
    """Take each step both ways, in turn, and write the report."""
    base = prepare_base(DEFAULT_BASE, Path(tempfile.gettempdir()) / "lorry-base" / DEFAULT_BASE)
    config = resolve(arguments={"steps": 2 if quick else STEPS, "threads": 1})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = load_tokenizer(base)
    with tempfile.TemporaryDirectory(prefix="lorry-bench-") as folder:
        names = write_datasets(Path(folder), USERS, config)
        datasets = [Dataset.load(Path(folder) / name / "dataset") for name in names]
    steps = _steps(datasets, config, tokenizer)
    torch.set_num_threads(1)
    measures = [
        _measure(
            load_quantised(base, device=device, expanded=expanded), config, steps, tokenizer.pad_token_id or 0, held
        )
        for expanded, held in ((True, "expanded"), (False, "in 4 bits"))
        if not (expanded and device == "cuda")
    ]
    return report("training_together", measures, peer="as one step", quick=quick)


def _steps(datasets: Sequence[Dataset], config: ResolvedConfig, tokenizer: Any) -> list[list[Rows]]:
    """Return the rows of each step: one list a user."""
    tasks = [plan_task(dataset, config, tokenizer, general_rows=0) for dataset in datasets]
    number = min(len(task.plan) for task in tasks)
    return [[[task.rows[index] for index in task.plan[step]] for task in tasks] for step in range(number)]


def _measure(model: Any, config: ResolvedConfig, steps: Sequence[Sequence[Rows]], pad: int, held: str) -> Measure:
    alone: list[float] = []
    together: list[float] = []
    with fresh_adapter(model, config.training) as adapted:
        _pass(adapted, [row for rows in steps[0] for row in rows], pad)  # the first products allocate for good
        for number, users in enumerate(steps):
            one_step = [[row for rows in users for row in rows]]
            sides = [(alone, users), (together, one_step)]
            for seconds, batches in sides if number % 2 else reversed(sides):
                started = time.perf_counter()
                for rows in batches:
                    _pass(adapted, rows, pad)
                seconds.append(time.perf_counter() - started)
    return compare(
        f"{USERS} users' steps of {len(steps[0][0])} rows, the base {held}", unit="s", ours=alone, peer=together
    )


def _pass(model: Any, rows: Rows, pad: int) -> None:
    base = model.get_base_model()
    batch = {key: tensor.to(base.device) for key, tensor in collate(rows, pad_token_id=pad).items()}
    states = label_states(base, batch)
    projected_losses(base, states.hidden, cross_entropy(states.targets)).mean().backward()
    for parameter in model.parameters():
        parameter.grad = None
    if base.device.type == "cuda":
        torch.cuda.synchronize()
