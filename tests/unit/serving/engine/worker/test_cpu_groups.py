from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serving.engine.worker.cpu_groups import NO_SLOT, add_product, group

SLOTS = st.integers(NO_SLOT, 3)
DECODES = st.lists(SLOTS, max_size=40)
PREFILLS = st.lists(st.tuples(SLOTS, st.integers(1, 60)), max_size=6).map(
    lambda runs: [slot for slot, size in runs for _ in range(size)]
)


@given(st.one_of(DECODES, PREFILLS))
def test_every_row_with_an_adapter_is_in_one_group_of_its_slot_and_no_other_row_is(slots: list[int]) -> None:
    groups, rows = group(slots), torch.arange(len(slots)).unsqueeze(1)
    met = [
        (slot, int(row)) for slot, there, _ in groups.pairs(groups.gather(rows), groups.gather(rows)) for row in there
    ]

    assert sorted(met) == sorted((slot, row) for row, slot in enumerate(slots) if slot != NO_SLOT)


@given(st.one_of(DECODES, PREFILLS))
def test_what_is_written_to_a_group_reaches_its_rows_alone(slots: list[int]) -> None:
    groups, y = group(slots), torch.zeros(len(slots) + 2, 3)
    gathered = groups.gather(y)
    for slot, rows, _ in groups.pairs(gathered, gathered):
        rows += 10 + slot
    groups.put_back(y, gathered)

    expected = [0 if slot == NO_SLOT else 10 + slot for slot in slots] + [0, 0]  # two rows of padding
    assert y[:, 0].tolist() == expected


@given(st.one_of(DECODES, PREFILLS))
def test_a_batch_counts_as_grouped_only_when_it_has_an_adapter(slots: list[int]) -> None:
    assert bool(group(slots)) == any(slot != NO_SLOT for slot in slots)


@pytest.mark.parametrize(
    ("slots", "gathers"),
    [
        ([2] * 16, False),
        ([NO_SLOT, 1, 1, NO_SLOT, 0], False),
        ([0, 1] * 8, True),
        ([0] * 100 + [1] * 100 + [0] * 100, False),
    ],
    ids=["one adapter", "one run each", "interleaved decode", "long prompts"],
)
def test_rows_are_copied_only_when_they_are_scattered(slots: list[int], gathers: bool) -> None:
    assert (group(slots).rows is not None) is gathers


def test_one_product_reads_the_groups_where_they_lie() -> None:
    y = torch.zeros(16, 4)
    groups = group([1] * 16)
    ((slot, rows, _),) = groups.pairs(groups.gather(y), groups.gather(y))

    assert slot == 1
    assert rows.data_ptr() == y.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_a_product_is_the_same_in_every_mixture_of_dtypes(dtype: torch.dtype, weights: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(5, 32, generator=generator)
    a, b = torch.randn(32, 4, generator=generator) / 6, torch.randn(4, 24, generator=generator) / 2
    y = torch.ones(5, 24, dtype=dtype)
    add_product(y, x.to(dtype), a.to(weights), b.to(weights), scale=0.5)

    torch.testing.assert_close(y.float(), 1 + 0.5 * x @ a @ b, atol=0.05, rtol=0.05)
