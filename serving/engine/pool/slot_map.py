"""Which version the engine's device slots hold, as the workers told when they filled them."""

from __future__ import annotations


class SlotMap:
    """Slot number → version; a version has one slot at most."""

    def __init__(self) -> None:
        self._held: dict[int, str] = {}

    def __contains__(self, version_id: object) -> bool:
        return version_id in self._held.values()

    def __len__(self) -> int:
        return len(self._held)

    def slots(self) -> dict[str, int]:
        """Return version → slot."""
        return {version_id: slot for slot, version_id in self._held.items()}

    def put(self, version_id: str, slot: int) -> str | None:
        """Note that a slot was filled with a version; returns the other version that had it until then."""
        self.remove(version_id)
        before = self._held.get(slot)
        self._held[slot] = version_id
        return before

    def remove(self, version_id: str) -> bool:
        """Note that a version left its slot; False when it had none."""
        slot = self.slots().get(version_id)
        if slot is None:
            return False
        del self._held[slot]
        return True
