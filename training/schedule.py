"""Which examples each step sees: decided before training, by the seed alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

_WINDOW_BATCHES = 8
_MOST_CYCLES = 4  # seen more often, few examples are learnt by heart, and what is not among them is said worse


def plan_batches(
    lengths: Sequence[int], epochs: Sequence[int], *, batch_size: int, steps: int | None, seed: int, min_steps: int = 0
) -> list[list[int]]:
    """Return the indices of each step's examples.

    Args:
        lengths: tokens of each example; batches hold examples of similar length, so that little is padded.
        epochs: how often each example is seen; those seen less often than others are spread over all rounds.
        batch_size: examples a step, the last step of a round excepted.
        steps: cut the plan off, or repeat it, to have exactly so many steps; None = as the epochs give.
        seed: equal seeds give equal plans.
        min_steps: where the epochs give fewer, everything is gone over again until there are so many, four times in all
            at most.
    """
    rounds = max(epochs, default=0)
    wanted = min_steps if steps is None else steps
    plan: list[list[int]] = []
    cycle = 0
    while rounds and (cycle == 0 or len(plan) < wanted) and (cycle < _MOST_CYCLES or steps is not None):
        rng = random.Random(f"{seed}:{cycle}")
        seen_in = [set(rng.sample(range(rounds), count)) for count in epochs]
        for number in range(rounds):
            chosen = [index for index, numbers in enumerate(seen_in) if number in numbers]
            plan += _batches(chosen, lengths, batch_size, rng)
        cycle += 1
    return plan[:wanted] if cycle > 1 or steps is not None else plan


def _batches(chosen: list[int], lengths: Sequence[int], batch_size: int, rng: random.Random) -> list[list[int]]:
    """Shuffle, sort by length inside windows of a few batches, cut, and shuffle the batches."""
    rng.shuffle(chosen)
    window = batch_size * _WINDOW_BATCHES
    batches = []
    for start in range(0, len(chosen), window):
        near = sorted(chosen[start : start + window], key=lambda index: (lengths[index], index))
        batches += [near[at : at + batch_size] for at in range(0, len(near), batch_size)]
    rng.shuffle(batches)
    return batches
