"""What the API server can ask of every worker: mixed into vLLM's worker class by ``--worker-extension-cls``.

Each call runs on the engine's thread, between two steps, and returns in microseconds; erasing takes as long as
overwriting the weights does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.engine.opened import OpenedFiles
from serving.engine.worker.stager import StageOrder
from serving.engine.worker_seam import manager_of, scheduled


class LorryWorker:
    """Calls by `collective_rpc`; arguments and results are plain values."""

    model_runner: Any
    rank: int

    def lorry_connect(self, address: str) -> dict[str, int]:
        """Send signals to `address` from now on; returns the worker's rank, slots and capacity."""
        manager = manager_of(self.model_runner)
        manager.signals.connect(address, rank=self.rank)
        return {"rank": self.rank, "slots": manager.models.lora_slots, "capacity": manager.models.capacity}

    def lorry_stage(self, version_id: str, number: int, files: Mapping[str, Any], urgent: bool, call: int) -> str:
        """Bring an adapter into host memory; ``staged`` when it is there, ``queued`` when a signal will tell."""
        order = StageOrder(version_id=version_id, number=number, files=OpenedFiles.of(files), urgent=urgent, call=call)
        return manager_of(self.model_runner).stager.stage(order)

    def lorry_drop(self, version_id: str) -> dict[str, Any]:
        """Take an adapter out of host memory and its slot out of use, unless a request in the batch uses it."""
        return self._lorry_remove(version_id, erase=False)

    def lorry_erase(self, version_id: str) -> dict[str, Any]:
        """Like `lorry_drop`; then overwrite the weights in host memory and in every slot, and check the slots."""
        return self._lorry_remove(version_id, erase=True)

    def lorry_residents(self) -> dict[str, Any]:
        """Return what is in host memory (version_id → bytes), and the version in each slot in use (or None)."""
        manager = manager_of(self.model_runner)
        return {"host": manager.stager.residents(), "slots": manager.models.in_use()}

    def _lorry_remove(self, version_id: str, *, erase: bool) -> dict[str, Any]:
        if any(request.lora_name == version_id for request in scheduled(self.model_runner)):  # under any number
            return {"removed": False, "reason": "scheduled"}
        return manager_of(self.model_runner).remove(version_id, erase=erase)
