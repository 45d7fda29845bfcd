"""Which version the engine's device slots hold, as the workers told when they filled them."""

from __future__ import annotations


class SlotMap:
    """Slot number → version; a version has one slot at most.

    What left its slot is still in the slot's tensors until something else is copied there, or they are zeroed.
    """

    def __init__(self) -> None:
        self._held: dict[int, str] = {}
        self._remains: dict[int, str] = {}

    def __contains__(self, version_id: object) -> bool:
        return version_id in self._held.values()

    def __len__(self) -> int:
        return len(self._held)

    def slots(self) -> dict[str, int]:
        """Return version → slot."""
        return {version_id: slot for slot, version_id in self._held.items()}

    def find(self, version_id: str) -> int | None:
        """Return a slot whose tensors hold a version, whether or not it can be used; None = there is none."""
        slots = {**self._held, **self._remains}  # no slot is in both
        return next((slot for slot, other in slots.items() if other == version_id), None)

    def put(self, version_id: str, slot: int) -> str | None:
        """Note that a slot was filled with a version; returns the other version that had it until then."""
        self.remove(version_id)
        self._remains.pop(slot, None)
        before = self._held.get(slot)
        self._held[slot] = version_id
        return before

    def remove(self, version_id: str) -> bool:
        """Note that a version left its slot, whose tensors still hold it; False when it had none."""
        slot = self.slots().get(version_id)
        if slot is None:
            return False
        self._remains[slot] = self._held.pop(slot)
        return True

    def zeroed(self, version_id: str) -> None:
        """Note that no slot's tensors hold a version any more."""
        self.remove(version_id)
        self._remains = {slot: other for slot, other in self._remains.items() if other != version_id}

    @property
    def filled(self) -> frozenset[str]:
        """The versions that some slot's tensors hold, whether or not they can be used."""
        return frozenset(self._held.values()) | frozenset(self._remains.values())
