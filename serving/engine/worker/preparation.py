"""Adapters in the form that a slot is filled from, made on the stager's thread by vLLM's own parts.

They name, scale, merge and cut a file's tensors; what they would copy into a layer is put beside its place there, and
what they did to the first adapters of a form is done to the next ones without them. Nothing is read here that the
engine's thread changes.

``tests/contract`` fails when vLLM's parts are not what this file was written for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from vllm.config.lora import LoRAConfig
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.layers.column_parallel_linear import MergedColumnParallelLinearWithLoRA
from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper

from serving.engine.worker.layouts import Cut, Layouts, Region, Runs
from serving.engine.worker.stager import StageOrder
from serving.engine.worker.weights_file import AdapterFiles
from serving.errors import AdapterUnfit

_PLAIN_COPIES = (BaseLinearLayerWithLoRA.set_lora, MergedColumnParallelLinearWithLoRA.set_lora)


@dataclass(kw_only=True, eq=False)
class PreparedAdapter:
    """An adapter in host memory, ready to be copied: each tensor beside the place it goes to.

    Attributes:
        lora: what vLLM registers.
        regions: where the tensors go, in order; equal for all adapters of one shape.
        tensors: what goes there, or where there are runs, into those.
        runs: how the tensors lie in a slot, where they are not the regions', but whole runs of those.
    """

    version_id: str
    lora: LoRAModel
    regions: tuple[Region, ...]
    tensors: list[torch.Tensor]
    size_bytes: int
    runs: Runs | None = None

    def wipe(self) -> None:
        """Overwrite the weights with zeros."""
        for tensor in self.tensors:
            tensor.zero_()


class Worker(Protocol):
    """What is asked of vLLM's worker manager, once it serves a model."""

    lora_config: LoRAConfig
    max_position_embeddings: int
    vocab_size: int
    _lora_model_cls: type[LoRAModel]

    @property
    def models(self) -> Any:
        """The model's layers and their slots: `PooledModelManager`."""


class Preparation:
    """Makes adapters ready to be copied; of one thread."""

    def __init__(self, worker: Worker) -> None:
        """Know no form yet."""
        self._worker = worker
        self._layouts = Layouts(self._plan_runs)

    def knows(self, form: bytes) -> bool:
        """Say whether adapters of this form are made without vLLM's parts."""
        return self._layouts.find(form) is not None

    def prepare(self, order: StageOrder, files: AdapterFiles) -> PreparedAdapter:
        """Build what a slot is filled from.

        Raises:
            AdapterDamaged: naming the file that cannot be used.
            AdapterUnfit: naming a module that this model lacks, a tensor that does not fit its slot, or one with values
                that would poison the engine.
            ValueError: vLLM's own refusals.
        """
        layout = self._layouts.find(files.form)
        if layout is None:
            return self._prepare_by_vllm(order, files)
        numbers = files.numbers(layout.dtype)
        layout.scale(numbers)
        pieces = layout.pieces(numbers)
        return _prepared(order, rank=layout.rank, regions=layout.regions, tensors=pieces, runs=layout.runs)

    def _prepare_by_vllm(self, order: StageOrder, files: AdapterFiles) -> PreparedAdapter:
        """Have vLLM's own parts make the tensors, and learn from them where the form is seen again."""
        dtype = files.dtype
        numbers = files.numbers(dtype) if dtype is not None and self._layouts.teaches(files.form) else None
        before = None if numbers is None else numbers.clone()
        lora = self._named(order, files)
        factors = [weights.scaling for weights in lora.loras.values()]  # until they are merged
        layers = self._worker.models.modules
        self._worker.models._create_merged_loras_inplace(lora)
        foreign = sorted(lora.loras.keys() - layers.keys())
        if foreign or not lora.loras:
            raise AdapterUnfit(f"The adapter touches layers that are not served: {', '.join(foreign) or 'none'}.")
        pairs = [pair for name in lora.loras for pair in pairs_of(name, layers[name], lora.loras[name])]
        if numbers is not None and before is not None:
            self._layouts.learn(
                files.form, rank=lora.rank, pairs=pairs, numbers=numbers, before=before, factors=factors
            )
        regions = tuple(region for region, _ in pairs)
        return _prepared(order, rank=lora.rank, regions=regions, tensors=[tensor for _, tensor in pairs])

    def _named(self, order: StageOrder, files: AdapterFiles) -> LoRAModel:
        """Have vLLM check the configuration, and name the tensors as its layers are named."""
        worker, model = self._worker, self._worker.models.model
        stated = {**files.config, "vllm_max_position_embeddings": worker.max_position_embeddings}
        helper = PEFTHelper.from_dict(stated)
        helper.validate_legal(worker.lora_config)
        mapper = getattr(model, "hf_to_vllm_mapper", None)
        return worker._lora_model_cls.from_lora_tensors(
            lora_model_id=order.number,
            tensors=files.tensors,
            peft_helper=helper,
            device="cpu",
            dtype=worker.lora_config.lora_dtype,
            model_vocab_size=worker.vocab_size,
            weights_mapper=None if mapper is None else mapper.get_rename_mapper(),
            skip_prefixes=getattr(model, "lora_skip_prefixes", None),
        )

    def _plan_runs(self, regions: Sequence[Region], cuts: Sequence[Cut]) -> Runs | None:
        runs: Runs | None = self._worker.models.plan_runs(regions, cuts)
        return runs


def is_plain_copy(module: Any) -> bool:
    """Say whether a layer of vLLM does nothing with an adapter's tensors but copy them into its slot."""
    return type(module).set_lora in _PLAIN_COPIES


def pairs_of(name: str, module: Any, weights: Any) -> Iterator[tuple[Region, torch.Tensor]]:
    """Yield what vLLM's `set_lora` of this layer would copy, and where to.

    Raises:
        AdapterUnfit: when the layer is not a plain copy, or a tensor does not fit its slot.
    """
    if not is_plain_copy(module):
        raise AdapterUnfit(f"The adapter touches {name}, a layer of a kind that is not served.")
    side_a, side_b = weights.lora_a, weights.lora_b
    if module.tp_size > 1:
        side_a, side_b = module.slice_lora_a(side_a), module.slice_lora_b(side_b)
    if torch.is_tensor(side_a):
        side_a, side_b = [side_a], [side_b]
    if len(side_a) != module.n_slices or len(side_b) != module.n_slices:
        raise AdapterUnfit(f"The adapter's {name} has {len(side_a)} parts; the layer has {module.n_slices}.")
    for part, (a, b) in enumerate(zip(side_a, side_b, strict=True)):
        if (a is None) != (b is None):
            raise AdapterUnfit(f"The adapter's {name} has one of two matrices.")
        if a is None:
            continue
        room_a, room_b = module.lora_a_stacked[part].shape[2:], module.lora_b_stacked[part].shape[2:]
        if a.shape[0] > room_a[0] or a.shape[1] != room_a[1] or b.shape[0] != room_b[0] or b.shape[1] > room_b[1]:
            raise AdapterUnfit(f"The adapter's {name} is {tuple(b.shape)} × {tuple(a.shape)}, which does not fit.")
        yield (name, part, "a", *a.shape), a
        yield (name, part, "b", *b.shape), b


def _prepared(
    order: StageOrder,
    *,
    rank: int,
    regions: tuple[Region, ...],
    tensors: list[torch.Tensor],
    runs: Runs | None = None,
) -> PreparedAdapter:
    return PreparedAdapter(
        version_id=order.version_id,
        lora=LoRAModel(order.number, rank, {}),
        regions=regions,
        tensors=tensors,
        size_bytes=sum(tensor.nbytes for tensor in tensors),
        runs=runs,
    )
