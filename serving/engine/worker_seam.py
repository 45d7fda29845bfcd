"""The one file that replaces private parts of vLLM's workers: how an adapter gets into host memory and into a slot.

What stock vLLM does: loading an adapter reads, parses, scales and packs it on the engine's thread, then takes a slot at
once; an adapter that its cache evicted is read from its path inside a model step, and a missing file kills the
engine; removing one leaves its weights in the slot, and does not care whether a running request uses it. Here:

- `PooledWorkerManager` takes the place of the class that vLLM's model runners build. It registers what the stager
  prepared, never reads a file, and takes a slot only inside a step that needs it;
- `PooledModelManager` copies prepared weights into a slot in one call, and knows what every slot's tensors hold, so
  that an erased adapter's can be zeroed and checked;
- a runner's `remove_lora` is refused for an adapter of a request in its batch.

``tests/contract`` fails when vLLM's parts are not what this file was written for.

Axes: a slot's A (rank, features in), B (features out, rank); vLLM stacks them as (slots, 1, …, …).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from vllm.lora.lora_model import LoRAModel
from vllm.lora.model_manager import LRUCacheLoRAModelManager
from vllm.lora.request import LoRARequest
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
from vllm.utils.gpu_sync_debug import gpu_sync_allowed
from vllm.v1.worker import lora_model_runner_mixin
from vllm.v1.worker.lora_model_runner_mixin import LoRAModelRunnerMixin

from serving.engine.worker.layouts import Cut, Region, Runs
from serving.engine.worker.preparation import Preparation, PreparedAdapter, is_plain_copy
from serving.engine.worker.signals import SignalSender
from serving.engine.worker.slab import Place, Slab
from serving.engine.worker.stager import Stager
from serving.errors import AdapterNotLoaded


@dataclass(kw_only=True)
class Slot:
    """What a slot's tensors hold, whether or not it is in use: None = only zeros."""

    version_id: str | None = None
    regions: tuple[Region, ...] | None = None  # None = unknown: zero before use
    views: dict[tuple[Region, ...] | Runs, list[torch.Tensor]] = field(default_factory=dict)


class PooledModelManager(LRUCacheLoRAModelManager):  # type: ignore[misc]  # vLLM is not typed
    """vLLM's model manager, with slots that know what is in them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slots = [Slot() for _ in range(self.lora_slots)]
        self._slab = self._lay_out() if self.device.type == "cpu" else None
        self.prepared: dict[int, PreparedAdapter] = {}  # of what is registered

    def plan_runs(self, regions: Sequence[Region], cuts: Sequence[Cut]) -> Runs | None:
        """Return how tensors get into a slot in whole runs; None when they do not."""
        return None if self._slab is None else self._slab.runs(regions, cuts)

    def register(self, adapter: PreparedAdapter, number: int) -> None:
        """Let vLLM know a prepared adapter as `number`, without a slot."""
        adapter.lora.id = number
        self.prepared[number] = adapter
        self._registered_adapters[number] = adapter.lora

    def activate_adapter(self, lora_id: int) -> bool:
        """Copy an adapter into a slot, the least recently used one when none is free; False when it has one."""
        adapter = self.prepared.get(lora_id)
        if adapter is None or lora_id in self._active_adapters:
            return self._activate_foreign(lora_id)
        if len(self._active_adapters) >= self.lora_slots:
            self._active_adapters.remove_oldest()
        index = self.lora_index_to_id.index(None)
        self._fill(index, adapter)
        self._active_adapters[lora_id] = None
        self.lora_index_to_id[index] = lora_id
        return True

    def remove_adapter(self, adapter_id: int) -> bool:
        """Forget an adapter; what its slot's tensors hold stays known."""
        self.prepared.pop(adapter_id, None)
        return bool(super().remove_adapter(adapter_id))

    def remove_all_adapters(self) -> None:
        """Forget every adapter; what the slots' tensors hold stays known."""
        self.prepared.clear()
        super().remove_all_adapters()

    def in_use(self) -> list[str | None]:
        """Return the version in each slot; None for a slot that no adapter has."""
        slots = zip(self.slots, self.lora_index_to_id, strict=True)
        return [slot.version_id if number is not None else None for slot, number in slots]

    def zero_slots_of(self, version_id: str) -> int:
        """Zero every slot that holds weights of `version_id`; returns how many did.

        Raises:
            AdapterNotLoaded: when a slot is not zero afterwards.
        """
        zeroed = 0
        for index, slot in enumerate(self.slots):
            if slot.version_id == version_id:
                self._zero(index)
                if any(bool(tensor.any()) for tensor in self._tensors(index)):
                    raise AdapterNotLoaded("A slot still holds weights after it was zeroed.")
                zeroed += 1
        return zeroed

    def _activate_foreign(self, lora_id: int) -> bool:
        """Go vLLM's own way, for its dummies and for layers that are not plain copies."""
        activated = bool(super().activate_adapter(lora_id))
        if activated:
            index = self.lora_index_to_id.index(lora_id)
            self.slots[index].version_id, self.slots[index].regions = None, None
            self._tell_ranks(index, None)
        return activated

    def _fill(self, index: int, adapter: PreparedAdapter) -> None:
        slot = self.slots[index]
        if slot.regions != adapter.regions:  # else every number that is there is overwritten
            self._zero(index)
            self._tell_ranks(index, adapter.regions)
        where = adapter.regions if adapter.runs is None else adapter.runs
        views = slot.views.get(where)
        if views is None:
            views = self._views(index, adapter)
            slot.views = {where: views}
        slot.version_id, slot.regions = adapter.version_id, adapter.regions
        if views:
            with torch.inference_mode():
                torch._foreach_copy_(views, adapter.tensors, non_blocking=True)

    def _views(self, index: int, adapter: PreparedAdapter) -> list[torch.Tensor]:
        if adapter.runs is not None and self._slab is not None:
            return self._slab.views(index, adapter.runs)
        return [self._region(index, region) for region in adapter.regions]

    def _lay_out(self) -> Slab:
        """Let the layers' tensors, which are empty yet, lie side by side for each slot, as PEFT names them."""
        rooms: dict[tuple[str, str], tuple[Place, torch.Tensor]] = {}
        plain = {name: each for name, each in self.modules.items() if is_plain_copy(each)}
        for name, module in plain.items():
            packed = self.packed_modules.get(name, [])
            names = packed if len(packed) == module.n_slices else [name] * module.n_slices
            for part, own in enumerate(names):
                rooms[f"{own} {part}", "a"] = (name, part, "a"), module.lora_a_stacked[part]
                rooms[f"{own} {part}", "b"] = (name, part, "b"), module.lora_b_stacked[part]
        in_order = (rooms[key] for key in sorted(rooms))
        sizes = {place: (tensor.shape[2], tensor.shape[3]) for place, tensor in in_order}
        slab = Slab(sizes, slots=self.lora_slots, dtype=self.lora_config.lora_dtype)
        for name, module in plain.items():
            parts = range(module.n_slices)
            module.lora_a_stacked = tuple(slab.stacked((name, part, "a")) for part in parts)
            module.lora_b_stacked = tuple(slab.stacked((name, part, "b")) for part in parts)
        return slab

    def _zero(self, index: int) -> None:
        with torch.inference_mode():
            torch._foreach_zero_(list(self._tensors(index)))
        slot = self.slots[index]
        slot.version_id, slot.regions = None, ()

    def _tell_ranks(self, index: int, regions: tuple[Region, ...] | None) -> None:
        """Let products that know how to make use of it know what a slot is filled with; None = with anything."""
        ranks: dict[int, dict[int, int]] = {}
        for name, part, side, rows, _ in regions or ():
            if side == "a":
                ranks.setdefault(id(self.modules[name].lora_a_stacked), {})[part] = rows
        for wrapper in self.punica_wrapper_mapping.values():
            if (learn_slot := getattr(wrapper, "learn_slot", None)) is not None:
                learn_slot(index, None if regions is None else ranks)

    def _tensors(self, index: int) -> Iterator[torch.Tensor]:
        for module in self.modules.values():
            for stacked in (*module.lora_a_stacked, *module.lora_b_stacked):
                yield stacked[index]

    def _region(self, index: int, region: Region) -> torch.Tensor:
        name, part, side, rows, columns = region
        module = self.modules[name]
        stacked = (module.lora_a_stacked if side == "a" else module.lora_b_stacked)[part]
        return stacked[index, 0, :rows, :columns]


class PooledWorkerManager(LRUCacheWorkerLoRAManager):  # type: ignore[misc]  # vLLM is not typed
    """vLLM's worker manager, which takes adapters from the stager and never from a disk."""

    _manager_cls = PooledModelManager

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.signals = SignalSender()
        self.preparation = Preparation(self)
        self.stager: Stager[PreparedAdapter] = Stager(self.preparation.prepare, signals=self.signals)

    @property
    def models(self) -> PooledModelManager:
        """The slots, and what is registered."""
        manager: PooledModelManager = self._adapter_manager
        return manager

    def remove(self, version_id: str, *, erase: bool) -> dict[str, Any]:
        """Take an adapter out of vLLM's tables and host memory, and with `erase` overwrite and check its weights.

        It is found by its name: one that was staged twice may be registered under two numbers.
        """
        numbers = [number for number, adapter in self.models.prepared.items() if adapter.version_id == version_id]
        for number in numbers:
            self.remove_adapter(number)
        zeroed = self.models.zero_slots_of(version_id) if erase else 0
        freed_bytes = self.stager.drop(version_id, wipe=erase)
        return {"removed": True, "registered": bool(numbers), "freed_bytes": freed_bytes, "slots_zeroed": zeroed}

    def add_adapter(self, lora_request: LoRARequest) -> bool:
        """Register a staged adapter, without a slot; False when it is not staged, or too many are registered.

        This is what the engine's `add_lora` comes to. Nobody needs it: a step registers what it finds staged.
        """
        number = lora_request.lora_int_id
        if self.models.get_adapter(number) is not None:
            return True
        adapter = self.stager.get(lora_request.lora_name)
        if adapter is None or len(self.models) >= self.models.capacity:
            return False
        self.models.register(adapter, number)
        return True

    def _apply_adapters(self, lora_requests: set[LoRARequest]) -> None:
        """Give every adapter of this step a slot; the only place where a slot is taken."""
        wanted = {request.lora_int_id: request for request in lora_requests if request}
        manager = self.models
        if len(wanted) > manager.lora_slots:
            raise RuntimeError(f"{len(wanted)} adapters are scheduled for {manager.lora_slots} slots")
        missing = []
        for number, request in wanted.items():  # first, so that none of them makes room for another
            manager._registered_adapters.touch(number)
            if number in manager._active_adapters:
                manager._active_adapters.touch(number)
            else:
                missing.append(request)
        for request in missing:
            self._activate(request, wanted)

    def _activate(self, request: LoRARequest, wanted: dict[int, LoRARequest]) -> None:
        started = perf_counter()
        number = request.lora_int_id
        with gpu_sync_allowed():
            if self.models.get_adapter(number) is None:
                self._register_within_step(request, wanted)
            self.models.activate_adapter(number)
        if number in self.models.prepared:
            slot, seconds = self.models.lora_index_to_id.index(number), perf_counter() - started
            self.signals.send("activated", version_id=request.lora_name, slot=slot, seconds=seconds)

    def _register_within_step(self, request: LoRARequest, wanted: dict[int, LoRARequest]) -> None:
        """Bring back what vLLM forgot; what is lost is served as zeros, and told, so that its requests are aborted.

        Leases make a loss impossible. Should one happen, raising here would end every user's requests.
        """
        manager = self.models
        if len(manager) >= manager.capacity:
            manager.remove_adapter(next(number for number in manager.list_adapters() if number not in wanted))
        adapter = self.stager.get(request.lora_name)
        if adapter is None:
            lora = LoRAModel(request.lora_int_id, 1, {})
            adapter = PreparedAdapter(version_id=request.lora_name, lora=lora, regions=(), tensors=[], size_bytes=0)
            self.signals.send("lost", version_id=request.lora_name)
        manager.register(adapter, request.lora_int_id)

    def _load_adapter(self, lora_request: LoRARequest) -> LoRAModel:
        """Never called any more, and if it were, nothing would be read."""
        raise AdapterNotLoaded("Adapters are staged, not loaded.")


def scheduled(runner: Any) -> list[LoRARequest]:
    """Return the adapters that requests in `runner`'s batch use; of both of vLLM's runners."""
    if (batch := getattr(runner, "input_batch", None)) is not None:
        return list(batch.lora_id_to_lora_request.values())
    return list(runner.lora_state.lora_requests.values())


def manager_of(runner: Any) -> PooledWorkerManager:
    """Return the runner's worker manager.

    Raises:
        AdapterNotLoaded: when it is not ours: the plugin was not loaded in this worker.
    """
    manager = getattr(runner, "lora_manager", None)
    if not isinstance(manager, PooledWorkerManager):
        raise AdapterNotLoaded("The plugin `lorry` is not loaded in this worker.")
    return manager


def install() -> None:
    """Make vLLM's model runners build and use our parts; calling it again changes nothing."""
    lora_model_runner_mixin.LRUCacheWorkerLoRAManager = PooledWorkerManager
    LoRAModelRunnerMixin.remove_lora = _remove_unless_scheduled


def _remove_unless_scheduled(runner: LoRAModelRunnerMixin, lora_id: int) -> bool:
    runner._ensure_lora_enabled()
    if any(request.lora_int_id == lora_id for request in scheduled(runner)):
        return False
    return bool(runner.lora_manager.remove_adapter(lora_id))
