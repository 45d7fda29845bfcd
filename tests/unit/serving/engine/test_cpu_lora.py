from __future__ import annotations

import pytest
import torch
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from serving.engine.cpu_lora import MaskedPunicaWrapper, group_rows

SLOTS, RANK, FEATURES_IN, FEATURES_OUT = 3, 4, 8, 6
NONE = -1
BATCHES = {
    "base alone": [NONE] * 5,
    "one adapter alone": [1] * 5,
    "base among adapters": [0, 0, NONE, NONE, 2, NONE, 0],
    "decode, interleaved": [0, 1, 0, NONE, 2, 1],
    "one token": [NONE],
}


def weights() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    a = torch.randn(SLOTS, 1, RANK, FEATURES_IN, generator=generator)
    return a, torch.randn(SLOTS, 1, FEATURES_OUT, RANK, generator=generator)


def wrapper_for(slots: list[int], cls: type[PunicaWrapperCPU] = MaskedPunicaWrapper) -> PunicaWrapperCPU:
    wrapper = cls(64, 64, "cpu")
    ids = [100 + slot if slot != NONE else 0 for slot in slots]
    mapping = LoRAMapping(index_mapping=tuple(ids), prompt_mapping=tuple(ids), is_prefill=True)
    wrapper.update_metadata(mapping, [100 + slot for slot in range(SLOTS)], SLOTS, 50)
    return wrapper


def expected_delta(x: torch.Tensor, slots: list[int], *, scale: float) -> torch.Tensor:
    a, b = weights()
    rows = [
        scale * x[i] @ a[s, 0].T @ b[s, 0].T if s != NONE else torch.zeros(FEATURES_OUT) for i, s in enumerate(slots)
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("slots", BATCHES.values(), ids=BATCHES.keys())
def test_each_token_gets_its_own_slots_delta_and_a_base_token_none(slots: list[int]) -> None:
    a, b = weights()
    x = torch.randn(len(slots), FEATURES_IN)
    y = torch.ones(len(slots), 2 * FEATURES_OUT)
    wrapper_for(slots).add_lora_linear(y, x, (a, a), (b, b), 0.5, (FEATURES_OUT, FEATURES_OUT))

    delta = expected_delta(x, slots, scale=0.5)
    torch.testing.assert_close(y - 1, torch.cat([delta, delta], dim=1))


@pytest.mark.parametrize("slots", BATCHES.values(), ids=BATCHES.keys())
def test_logits_of_base_requests_get_no_delta(slots: list[int]) -> None:
    a, b = weights()
    x = torch.randn(len(slots), FEATURES_IN)
    y = torch.zeros(len(slots), FEATURES_OUT)
    wrapper_for(slots).add_lora_logits(y, x, a, b, 2.0)

    torch.testing.assert_close(y, expected_delta(x, slots, scale=2.0))


@pytest.mark.parametrize("slots", BATCHES.values(), ids=BATCHES.keys())
def test_embeddings_of_base_tokens_get_no_delta(slots: list[int]) -> None:
    _, b = weights()
    x = torch.randn(len(slots), RANK)
    y = torch.zeros(len(slots), FEATURES_OUT)
    wrapper_for(slots).add_lora_embedding(y, x, b)

    rows = [x[i] @ b[s, 0].T if s != NONE else torch.zeros(FEATURES_OUT) for i, s in enumerate(slots)]
    torch.testing.assert_close(y, torch.stack(rows))


def test_a_base_token_is_not_touched_by_the_last_bit() -> None:
    slots = BATCHES["base among adapters"]
    a, b = weights()
    y = torch.randn(len(slots), FEATURES_OUT)
    before = y.clone()
    wrapper_for(slots).add_lora_linear(y, torch.randn(len(slots), FEATURES_IN), (a,), (b,), 1.0, (FEATURES_OUT,))
    base = torch.tensor(slots) == NONE

    assert torch.equal(y[base], before[base])
    assert not torch.equal(y[~base], before[~base])


def test_stock_vllm_still_gives_base_tokens_the_last_slots_delta() -> None:
    """When this fails, vLLM has cured it, and `cpu_lora` can go."""
    slots = BATCHES["base among adapters"]
    a, b = weights()
    x = torch.randn(len(slots), FEATURES_IN)
    y = torch.zeros(len(slots), FEATURES_OUT)
    wrapper_for(slots, PunicaWrapperCPU).add_lora_linear(y, x, (a,), (b,), 1.0, (FEATURES_OUT,))

    torch.testing.assert_close(y, expected_delta(x, [s if s != NONE else SLOTS - 1 for s in slots], scale=1.0))


def test_groups_cover_every_token_with_an_adapter_once() -> None:
    slots = torch.tensor(BATCHES["decode, interleaved"])
    covered = torch.full_like(slots, NONE)
    for slot, rows in group_rows(slots):
        assert (covered[rows] == NONE).all()
        covered[rows] = slot

    assert torch.equal(covered, slots)
