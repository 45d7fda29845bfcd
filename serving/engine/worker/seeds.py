"""Generators of seeded requests that a CPU engine can rewind.

A prompt that is computed in several steps samples a token in each, and all but the last are thrown away. So that a seed
gives the same answer however a prompt was split, vLLM then takes the request's generator back by one draw's offset.
CPU generators have none: the call raises, and the engine dies for everyone. Any seeded request whose prompt does not
fit one step is enough.

Here a generator remembers its state from before each step, and going back restores it.

The runner is private; ``tests/contract`` watches it.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

_DRAW = 4  # what vLLM goes back by (gpu_model_runner.py, _bookkeeping_sync)

_update_states = GPUModelRunner._update_states


class RewindableGenerator(torch.Generator):  # type: ignore[misc]  # torch leaves it untyped
    """Draws as the generator that it was made from, and can go back to before the last `mark`."""

    _before: torch.Tensor

    @classmethod
    def like(cls, generator: torch.Generator) -> RewindableGenerator:
        """Return one in the state of `generator`."""
        rewindable = cls(device=generator.device)
        rewindable.set_state(generator.get_state())
        rewindable.mark()
        return rewindable

    def mark(self) -> None:
        """Remember this moment instead of the one before."""
        self._before = self.get_state()

    def get_offset(self) -> int:
        """Say that there is one draw to take back, however many numbers it took."""
        return _DRAW

    def set_offset(self, offset: int) -> None:
        """Take back what was drawn since the mark.

        Raises:
            ValueError: for any other offset than that of before the draw.
        """
        if offset != 0:
            raise ValueError(f"a CPU generator goes back by one draw only, not to offset {offset}")
        self.set_state(self._before)


def update_states(runner: GPUModelRunner, *args: Any, **kwargs: Any) -> Any:
    """Stand in for vLLM's, which comes before every step: what is drawn after it can be taken back."""
    outcome = _update_states(runner, *args, **kwargs)
    batch = runner.input_batch
    for index, generator in batch.generators.items():
        if not isinstance(generator, RewindableGenerator):
            generator = RewindableGenerator.like(generator)
            batch.generators[index] = generator
            runner.requests[batch.req_ids[index]].generator = generator
        generator.mark()
    return outcome


def make_seeds_rewindable() -> None:
    """Give every runner of this process such generators; calling it again changes nothing."""
    GPUModelRunner._update_states = update_states
