from __future__ import annotations

import pytest
import torch
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from serving.engine.worker.cpu_product import CorrectedGather, GroupedProduct

SLOTS, RANK, FEATURES_IN, FEATURES_OUT = 3, 4, 8, 6
NONE = -1
BATCHES = {
    "base alone": [NONE] * 5,
    "one adapter alone": [1] * 5,
    "base among adapters": [0, 0, NONE, NONE, 2, NONE, 0],
    "decode, interleaved": [0, 1, 0, NONE, 2, 1],
    "one token": [NONE],
    "long prompts": [2] * 40 + [NONE] * 3 + [0] * 40 + [2] * 40,
}
OURS = pytest.mark.parametrize("ours", [GroupedProduct, CorrectedGather])
EVERY_BATCH = pytest.mark.parametrize("slots", BATCHES.values(), ids=BATCHES.keys())


def weights() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    a = torch.randn(SLOTS, 1, RANK, FEATURES_IN, generator=generator)
    return a, torch.randn(SLOTS, 1, FEATURES_OUT, RANK, generator=generator)


def wrapper_for(slots: list[int], cls: type[PunicaWrapperCPU], *, is_prefill: bool = True) -> PunicaWrapperCPU:
    wrapper = cls(256, 256, "cpu")
    ids = [100 + slot if slot != NONE else 0 for slot in slots]
    mapping = LoRAMapping(index_mapping=tuple(ids), prompt_mapping=tuple(ids), is_prefill=is_prefill)
    wrapper.update_metadata(mapping, [100 + slot for slot in range(SLOTS)], SLOTS, 50)
    return wrapper


def expected_delta(x: torch.Tensor, slots: list[int], *, scale: float) -> torch.Tensor:
    a, b = weights()
    rows = [
        scale * x[i] @ a[s, 0].T @ b[s, 0].T if s != NONE else torch.zeros(FEATURES_OUT) for i, s in enumerate(slots)
    ]
    return torch.stack(rows)


@OURS
@EVERY_BATCH
@pytest.mark.parametrize("is_prefill", [True, False])
def test_each_token_gets_its_own_slots_delta_and_a_base_token_none(
    ours: type[PunicaWrapperCPU], slots: list[int], is_prefill: bool
) -> None:
    a, b = weights()
    x = torch.randn(len(slots), FEATURES_IN)
    y = torch.ones(len(slots), 2 * FEATURES_OUT)
    wrapper = wrapper_for(slots, ours, is_prefill=is_prefill)
    wrapper.add_lora_linear(y, x, (a, a), (b, b), 0.5, (FEATURES_OUT, FEATURES_OUT))

    delta = expected_delta(x, slots, scale=0.5)
    torch.testing.assert_close(y - 1, torch.cat([delta, delta], dim=1), atol=1e-5, rtol=1e-4)


@OURS
@EVERY_BATCH
def test_shrink_and_expand_apart_are_the_same_product(ours: type[PunicaWrapperCPU], slots: list[int]) -> None:
    """As layers use them whose ranks are spread over devices."""
    a, b = weights()
    x, y = torch.randn(len(slots), FEATURES_IN), torch.zeros(len(slots), FEATURES_OUT)
    buffers = torch.zeros(1, len(slots), RANK)
    wrapper = wrapper_for(slots, ours)
    wrapper.add_shrink(buffers, x, (a,), 2.0)
    wrapper.add_expand(y, buffers, (b,), (FEATURES_OUT,), offset_start=0, add_input=True)

    torch.testing.assert_close(y, expected_delta(x, slots, scale=2.0), atol=1e-5, rtol=1e-4)


@OURS
@EVERY_BATCH
def test_a_callers_buffer_is_used(ours: type[PunicaWrapperCPU], slots: list[int]) -> None:
    a, b = weights()
    x, y = torch.randn(len(slots), FEATURES_IN), torch.zeros(len(slots), FEATURES_OUT)
    buffer = (torch.zeros(len(slots), RANK),)
    wrapper_for(slots, ours).add_lora_linear(y, x, (a,), (b,), 1.0, (FEATURES_OUT,), buffer=buffer)

    torch.testing.assert_close(y, expected_delta(x, slots, scale=1.0), atol=1e-5, rtol=1e-4)


@OURS
@EVERY_BATCH
def test_logits_of_base_requests_get_no_delta(ours: type[PunicaWrapperCPU], slots: list[int]) -> None:
    a, b = weights()
    x = torch.randn(len(slots), FEATURES_IN)
    y = torch.zeros(len(slots), FEATURES_OUT)
    wrapper_for(slots, ours).add_lora_logits(y, x, a, b, 2.0)

    torch.testing.assert_close(y, expected_delta(x, slots, scale=2.0), atol=1e-5, rtol=1e-4)


@OURS
@EVERY_BATCH
def test_embeddings_of_base_tokens_get_no_delta(ours: type[PunicaWrapperCPU], slots: list[int]) -> None:
    _, b = weights()
    x = torch.randn(len(slots), RANK)
    y = torch.zeros(len(slots), FEATURES_OUT)
    wrapper_for(slots, ours).add_lora_embedding(y, x, b)

    rows = [x[i] @ b[s, 0].T if s != NONE else torch.zeros(FEATURES_OUT) for i, s in enumerate(slots)]
    torch.testing.assert_close(y, torch.stack(rows), atol=1e-5, rtol=1e-4)


@OURS
@EVERY_BATCH
def test_a_base_token_is_not_touched_by_the_last_bit(ours: type[PunicaWrapperCPU], slots: list[int]) -> None:
    a, b = weights()
    y = torch.randn(len(slots), FEATURES_OUT)
    before = y.clone()
    wrapper_for(slots, ours).add_lora_linear(y, torch.randn(len(slots), FEATURES_IN), (a,), (b,), 1.0, (FEATURES_OUT,))
    base = torch.tensor(slots) == NONE

    assert torch.equal(y[base], before[base])
    assert (y[~base] != before[~base]).any(dim=1).all()


def test_an_adapter_of_huge_weights_stays_in_its_own_rows() -> None:
    a, b = weights()
    a[1], b[1] = 1e30, 1e30
    slots = [0, 1, NONE, 0]
    x, y = torch.ones(4, FEATURES_IN), torch.zeros(4, FEATURES_OUT)
    wrapper_for(slots, GroupedProduct).add_lora_linear(y, x, (a,), (b,), 1.0, (FEATURES_OUT,))

    assert y[[0, 2, 3]].isfinite().all()
    assert not y[1].isfinite().any()


def test_what_a_slot_is_known_not_to_hold_is_not_computed() -> None:
    """Whatever lies beyond the adapter's rank, and in the parts that it does not have, is never read."""
    a, b = weights()
    stacked_a, stacked_b = (a.clone(), a.clone()), (b.clone(), b.clone())
    for part, rank in ((0, 2), (1, 0)):
        stacked_a[part][1, 0, rank:], stacked_b[part][1, 0, :, rank:] = torch.nan, torch.nan
    wrapper = wrapper_for([1, 1], GroupedProduct)
    wrapper.learn_slot(1, {id(stacked_a): {0: 2}})
    x, y = torch.randn(2, FEATURES_IN), torch.zeros(2, 2 * FEATURES_OUT)
    wrapper.add_lora_linear(y, x, stacked_a, stacked_b, 1.0, (FEATURES_OUT, FEATURES_OUT))

    torch.testing.assert_close(y[:, :FEATURES_OUT], x @ a[1, 0, :2].T @ b[1, 0, :, :2].T)
    assert not y[:, FEATURES_OUT:].any()


def test_a_slot_that_is_filled_anew_is_computed_anew() -> None:
    a, b = weights()
    stacked_a, stacked_b = (a,), (b,)
    wrapper = wrapper_for([1], GroupedProduct)
    x = torch.randn(1, FEATURES_IN)
    deltas = []
    for ranks in ({}, {id(stacked_a): {0: 2}}, {id(stacked_a): {0: 4}}, None):
        wrapper.learn_slot(1, ranks)
        y = torch.zeros(1, FEATURES_OUT)
        wrapper.add_lora_linear(y, x, stacked_a, stacked_b, 1.0, (FEATURES_OUT,))
        deltas.append(y)

    full = expected_delta(x, [1], scale=1.0)
    assert not deltas[0].any()
    assert not torch.allclose(deltas[1], full)
    torch.testing.assert_close(deltas[2], full)
    torch.testing.assert_close(deltas[3], full)
