"""Generators that a CPU engine can rewind, as its runner uses them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from serving.engine.worker import seeds
from serving.engine.worker.seeds import RewindableGenerator, update_states


def draw(generator: torch.Generator, numbers: int = 49) -> list[float]:
    return torch.empty(numbers).exponential_(generator=generator).tolist()


def test_it_draws_what_the_generator_that_it_was_made_from_would() -> None:
    plain = torch.Generator().manual_seed(7)
    draw(plain)
    rewindable = RewindableGenerator.like(plain)

    assert [draw(rewindable) for _ in range(3)] == [draw(plain) for _ in range(3)]


def test_going_back_by_a_draw_gives_the_same_numbers_again() -> None:
    generator = RewindableGenerator.like(torch.Generator().manual_seed(7))
    draw(generator)
    generator.mark()
    thrown_away = draw(generator)
    generator.set_offset(generator.get_offset() - 4)  # as vLLM does

    assert draw(generator) == thrown_away
    assert draw(generator) != thrown_away


def test_a_generator_of_torchs_own_cannot_go_back_on_a_cpu() -> None:
    with pytest.raises(RuntimeError, match="offset"):
        torch.Generator().get_offset()


def test_any_other_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="not to offset 8"):
        RewindableGenerator.like(torch.Generator()).set_offset(8)


def test_every_step_marks_the_seeded_requests_and_new_ones_are_exchanged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runner: Any = SimpleNamespace(
        requests={name: SimpleNamespace(generator=None) for name in ("plain", "seeded")},
        input_batch=SimpleNamespace(generators={}, req_ids=["plain", "seeded"]),
    )

    def begin(runner: Any, scheduled: str) -> str:
        if not runner.input_batch.generators:
            generator = torch.Generator().manual_seed(3)
            runner.requests["seeded"].generator = runner.input_batch.generators[1] = generator
        return f"corrections of {scheduled}"

    monkeypatch.setattr(seeds, "_update_states", begin)
    assert update_states(runner, "step") == "corrections of step"
    generator = runner.input_batch.generators[1]
    assert isinstance(generator, RewindableGenerator)
    assert runner.requests["seeded"].generator is generator
    assert runner.requests["plain"].generator is None

    draw(generator)
    update_states(runner, "step")
    assert runner.input_batch.generators[1] is generator
    second = draw(generator)
    generator.set_offset(0)
    assert draw(generator) == second
