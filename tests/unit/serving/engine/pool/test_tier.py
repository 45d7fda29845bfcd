"""A tier keeps its bounds and gives up nothing that is held or pinned, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serving.engine.pool.tier import Entry, Tier
from serving.errors import TierFull

VERSIONS = st.sampled_from([f"v{number}" for number in range(8)])


class AnyUse(RuleBasedStateMachine):
    """Adds, holds, pins, touches and removes in any order, beside a model that is a plain list."""

    @initialize(max_bytes=st.integers(1, 60), max_entries=st.one_of(st.none(), st.integers(1, 6)))
    def start(self, max_bytes: int, max_entries: int | None) -> None:
        self.max_bytes, self.max_entries = max_bytes, max_entries
        self.tier = Tier("memory", max_bytes=max_bytes, max_entries=max_entries, max_pinned=2)
        self.order: list[tuple[str, int]] = []  # least recently used first
        self.holds: list[str] = []
        self.pinned: set[str] = set()

    @rule(version_id=VERSIONS, size_bytes=st.integers(1, 25))
    def add(self, version_id: str, size_bytes: int) -> None:
        others = [(name, size) for name, size in self.order if name != version_id]
        stays = [(name, size) for name, size in others if name in self.holds or name in self.pinned]
        fits = sum(size for _, size in stays) + size_bytes <= self.max_bytes
        fits &= self.max_entries is None or len(stays) + 1 <= self.max_entries
        if not fits:
            before = self.tier.entries()
            with pytest.raises(TierFull):
                self.tier.make_room(version_id, size_bytes)
            assert self.tier.entries() == before
            return
        left = {entry.version_id for entry in self.tier.make_room(version_id, size_bytes)}
        loose = [name for name, _ in others if name not in self.holds and name not in self.pinned]
        assert left == set(loose[: len(left)]), "the least recently used leave first"
        self.order = [(name, size) for name, size in others if name not in left] + [(version_id, size_bytes)]

    @rule(version_id=VERSIONS)
    def touch(self, version_id: str) -> None:
        known = [entry for entry in self.order if entry[0] == version_id]
        assert self.tier.touch(version_id) is bool(known)
        self.order = [entry for entry in self.order if entry[0] != version_id] + known

    @rule(version_id=VERSIONS)
    def hold(self, version_id: str) -> None:
        self.tier.hold(version_id)
        self.holds.append(version_id)

    @rule(version_id=VERSIONS)
    def let_go(self, version_id: str) -> None:
        if version_id in self.holds:
            self.tier.let_go(version_id)
            self.holds.remove(version_id)
        else:
            with pytest.raises(ValueError, match="not held"):
                self.tier.let_go(version_id)

    @rule(version_id=VERSIONS)
    def pin(self, version_id: str) -> None:
        if version_id in self.pinned or len(self.pinned) < 2:
            self.tier.pin(version_id)
            self.pinned.add(version_id)
        else:
            with pytest.raises(TierFull):
                self.tier.pin(version_id)

    @rule(version_id=VERSIONS)
    def unpin(self, version_id: str) -> None:
        self.tier.unpin(version_id)
        self.pinned.discard(version_id)

    @rule(version_id=VERSIONS)
    def remove(self, version_id: str) -> None:
        if version_id in self.holds:
            with pytest.raises(TierFull):
                self.tier.remove(version_id)
            return
        removed = self.tier.remove(version_id)
        assert (removed is not None) == any(name == version_id for name, _ in self.order)
        self.order = [entry for entry in self.order if entry[0] != version_id]
        self.pinned.discard(version_id)

    @invariant()
    def it_is_what_the_model_says_within_bounds(self) -> None:
        assert [(entry.version_id, entry.size_bytes) for entry in self.tier.entries()] == self.order
        assert self.tier.size_bytes == sum(size for _, size in self.order) <= self.max_bytes
        assert self.max_entries is None or len(self.tier) <= self.max_entries
        assert self.tier.pinned == self.pinned


AnyUse.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestAnyUse = AnyUse.TestCase


def test_a_restart_takes_over_what_fits_and_names_the_rest() -> None:
    tier = Tier("disk", max_bytes=10)
    left = tier.restore(
        [Entry(version_id=name, size_bytes=size) for name, size in [("a", 4), ("b", 40), ("c", 5), ("d", 4)]]
    )
    assert [entry.version_id for entry in left] == ["b", "a"]
    assert [entry.version_id for entry in tier.entries()] == ["c", "d"]
