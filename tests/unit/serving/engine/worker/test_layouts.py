"""Forms of adapters: learned from what vLLM made of one, believed only when nothing else could have been meant."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from serving.engine.worker.layouts import Layouts, Region, Run

FORM = b"form"
Made = list[tuple[Region, torch.Tensor]]


def make(numbers: torch.Tensor) -> Made:
    """What vLLM makes of twelve numbers: A as it is, B scaled where it lies, half of its columns for this device."""
    a, b = numbers[:6].view(2, 3), numbers[6:].view(3, 2)
    b *= 2.5
    return [(("q", 0, "a", 2, 3), a), (("q", 0, "b", 3, 1), b[:, 1:])]


def numbers_of(seed: int) -> torch.Tensor:
    return torch.randn(12, generator=torch.Generator().manual_seed(seed))


def teach(layouts: Layouts, numbers: torch.Tensor, making: Callable[[torch.Tensor], Made] = make) -> bool:
    """Let an adapter come, as the worker does; says whether its form was learned from it."""
    if not layouts.teaches(FORM):
        return False
    before = numbers.clone()
    pairs = making(numbers)
    layouts.learn(FORM, rank=2, pairs=pairs, numbers=numbers, before=before, factors=[2.5, 1.0, 3.0])
    return layouts.find(FORM) is not None


def test_a_form_is_learned_from_its_second_adapter_and_cuts_the_third_as_vllm_does() -> None:
    layouts = Layouts()
    assert [teach(layouts, numbers_of(seed)) for seed in (1, 2)] == [False, True]
    layout = layouts.find(FORM)
    assert layout is not None
    assert (layout.rank, layout.dtype) == (2, torch.float32)
    expected, numbers = make(numbers_of(3)), numbers_of(3)
    assert layout.regions == tuple(region for region, _ in expected)
    layout.scale(numbers)
    cut = layout.cut(numbers)
    assert all(torch.equal(mine, theirs) for mine, (_, theirs) in zip(cut, expected, strict=True))


def test_what_is_cut_lies_where_the_numbers_are() -> None:
    layouts = Layouts()
    for seed in (1, 2):
        teach(layouts, numbers_of(seed))
    layout, numbers = layouts.find(FORM), numbers_of(3)
    assert layout is not None
    for tensor in layout.cut(numbers):
        tensor.zero_()
    assert torch.count_nonzero(numbers) == 3, "the other device's column of B"


def test_what_is_copied_are_the_tensors_or_the_runs_where_slots_are_laid_out_for_them() -> None:
    whole = (Run(source=0, target=4, count=7), Run(source=7, target=0, count=5))
    plain, laid_out = Layouts(), Layouts(lambda regions, cuts: whole)
    for layouts in (plain, laid_out):
        for seed in (1, 2):
            teach(layouts, numbers_of(seed))
    one, other = plain.find(FORM), laid_out.find(FORM)
    assert one is not None
    assert other is not None
    assert (one.runs, other.runs) == (None, whole)
    assert [tuple(piece.shape) for piece in one.pieces(numbers_of(3))] == [(2, 3), (3, 1)]
    assert torch.equal(torch.cat(other.pieces(numbers_of(3))), numbers_of(3))


def test_zeros_could_have_been_scaled_by_anything_so_the_next_adapter_teaches() -> None:
    layouts, zeros = Layouts(), numbers_of(2)
    zeros[6:] = 0
    assert [teach(layouts, numbers) for numbers in (numbers_of(1), zeros, numbers_of(3))] == [False, False, True]


def test_a_share_of_nothing_was_not_scaled_at_all() -> None:
    def make_less(numbers: torch.Tensor) -> Made:
        return [*make(numbers), (("k", 0, "a", 0, 3), numbers[:6].view(2, 3)[2:])]

    layouts = Layouts()
    assert [teach(layouts, numbers_of(seed), make_less) for seed in (1, 2)] == [False, True]
    layout = layouts.find(FORM)
    assert layout is not None
    assert layout.cut(numbers_of(3))[2].shape == (0, 3)


def converted(numbers: torch.Tensor) -> Made:
    return [(region, tensor.to(torch.bfloat16)) for region, tensor in make(numbers)]


def moved(numbers: torch.Tensor) -> Made:
    return [(region, tensor.clone()) for region, tensor in make(numbers)]


def scaled_otherwise(numbers: torch.Tensor) -> Made:
    return [(region, tensor.mul_(1.25)) for region, tensor in make(numbers)]


def shifted(numbers: torch.Tensor) -> Made:
    numbers += 1
    return make(numbers)


@pytest.mark.parametrize("making", [converted, moved, scaled_otherwise, shifted])
def test_what_cannot_be_done_by_cutting_stays_vllms(making: Callable[[torch.Tensor], Made]) -> None:
    layouts = Layouts()
    assert [teach(layouts, numbers_of(seed), making) for seed in range(4)] == [False] * 4
    assert not layouts.teaches(FORM), "nothing is tried again"


def overlapping(numbers: torch.Tensor) -> Made:
    """Two tensors of the same numbers, scaled once."""
    (region, a), _ = make(numbers)
    a *= 2.5
    return [(region, a), (("q", 1, "a", 2, 3), a)]


def test_tensors_that_share_numbers_are_not_scaled_twice() -> None:
    layouts = Layouts()
    assert [teach(layouts, numbers_of(seed), overlapping) for seed in range(3)] == [False] * 3


def test_only_so_many_forms_are_remembered() -> None:
    layouts = Layouts()
    for seed in (1, 2):
        teach(layouts, numbers_of(seed))
    for number in range(40):
        assert not layouts.teaches(b"%d" % number)
    assert layouts.find(FORM) is None
    assert not layouts.teaches(FORM), "it begins anew"
