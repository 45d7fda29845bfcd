"""The results of vLLM's CPU product beside those of `serving.engine.worker.cpu_product`, which replaces it."""

from __future__ import annotations

import torch
import vllm
from hypothesis import given
from hypothesis import strategies as st
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from serving.engine.vllm_version import minor_version
from serving.engine.worker.cpu_product import CorrectedGather, GroupedProduct

SLOTS, NONE = 4, -1


@st.composite
def batches(draw: st.DrawFn) -> list[int]:
    """Slots of a step's tokens: decodes of one token each, then prompts."""
    decodes = draw(st.lists(st.integers(NONE, SLOTS - 1), max_size=20))
    prompts = draw(st.lists(st.tuples(st.integers(NONE, SLOTS - 1), st.integers(1, 70)), max_size=4))
    slots = [*decodes, *(slot for slot, size in prompts for _ in range(size))]
    return slots or [NONE]


@st.composite
def layers(draw: st.DrawFn) -> tuple[int, tuple[int, ...], int, dict[int, dict[int, int]]]:
    """Features in, width of each part (fused or not, whole or one device's share), stacked rank, and own ranks."""
    stacked = draw(st.sampled_from([1, 8, 16]))
    widths = draw(st.sampled_from([(24,), (48, 16, 16), (40, 40), (1,), (7, 3)]))
    own = {
        slot: {part: draw(st.integers(1, stacked)) for part in range(len(widths)) if draw(st.booleans())}
        for slot in range(SLOTS)
    }
    return draw(st.sampled_from([1, 12, 64])), widths, stacked, own


def filled_slots(
    layer: tuple[int, tuple[int, ...], int, dict[int, dict[int, int]]], dtype: torch.dtype
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Return A and B of each part as vLLM stacks them: zeros where a slot's adapter has nothing."""
    features, widths, rank, own = layer
    generator = torch.Generator().manual_seed(11)
    a = tuple(torch.zeros(SLOTS, 1, rank, features, dtype=dtype) for _ in widths)
    b = tuple(torch.zeros(SLOTS, 1, width, rank, dtype=dtype) for width in widths)
    for slot, parts in own.items():
        for part, own_rank in parts.items():
            a[part][slot, 0, :own_rank] = torch.randn(own_rank, features, generator=generator) / features**0.5
            b[part][slot, 0, :, :own_rank] = torch.randn(widths[part], own_rank, generator=generator) / own_rank**0.5
    return a, b


def wrapper_for(slots: list[int], cls: type[PunicaWrapperCPU], *, is_prefill: bool) -> PunicaWrapperCPU:
    wrapper = cls(512, 512, "cpu")
    ids = tuple(100 + slot if slot != NONE else 0 for slot in slots)
    mapping = LoRAMapping(index_mapping=ids, prompt_mapping=ids, is_prefill=is_prefill)
    wrapper.update_metadata(mapping, [100 + slot for slot in range(SLOTS)], SLOTS + 1, 50)
    return wrapper


@given(slots=batches(), layer=layers(), is_prefill=st.booleans(), knows_ranks=st.booleans(), half=st.booleans())
def test_grouped_products_are_vllms_own_and_leave_base_tokens_alone(
    slots: list[int],
    layer: tuple[int, tuple[int, ...], int, dict[int, dict[int, int]]],
    is_prefill: bool,
    knows_ranks: bool,
    half: bool,
) -> None:
    dtype = torch.bfloat16 if half else torch.float32
    features, widths, _, own = layer
    a, b = filled_slots(layer, dtype)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(len(slots), features, generator=generator).to(dtype)
    before = torch.randn(len(slots), sum(widths), generator=generator).to(dtype)
    theirs, ours, corrected = before.clone(), before.clone(), before.clone()

    wrapper_for(slots, PunicaWrapperCPU, is_prefill=is_prefill).add_lora_linear(theirs, x, a, b, 1.0, widths)
    grouped = wrapper_for(slots, GroupedProduct, is_prefill=is_prefill)
    if knows_ranks:
        for slot, ranks in own.items():
            grouped.learn_slot(slot, {id(a): ranks})
    grouped.add_lora_linear(ours, x, a, b, 1.0, widths)
    wrapper_for(slots, CorrectedGather, is_prefill=is_prefill).add_lora_linear(corrected, x, a, b, 1.0, widths)

    base = torch.tensor(slots) == NONE
    assert torch.equal(ours[base], before[base])
    assert torch.equal(corrected[base], before[base])
    assert torch.equal(corrected[~base], theirs[~base])
    tolerance = 0.06 if half else 1e-5  # of bfloat16: vLLM rounds the product, and then the sum
    torch.testing.assert_close(ours[~base], theirs[~base], atol=tolerance, rtol=tolerance)


def test_stock_vllm_gives_base_tokens_the_last_slots_delta_until_0_32() -> None:
    """From 0.33 on they get none. Once 0.32 is no longer supported, `CorrectedGather` can go."""
    slots = [0, NONE, 2]
    layer = (12, (24,), 8, {slot: {0: 8} for slot in range(SLOTS)})
    a, b = filled_slots(layer, torch.float32)
    x, y = torch.randn(3, 12), torch.zeros(3, 24)
    wrapper_for(slots, PunicaWrapperCPU, is_prefill=False).add_lora_linear(y, x, (*a,), (*b,), 1.0, (24,))

    last_slots = x[1] @ a[0][SLOTS - 1, 0].T @ b[0][SLOTS - 1, 0].T
    expected = last_slots if minor_version(vllm.__version__) == "0.32" else torch.zeros(24)
    torch.testing.assert_close(y[1], expected)
