from __future__ import annotations

from serving.gateway.brief_cache import BriefCache


def test_a_value_is_forgotten_after_its_time() -> None:
    now = 0.0
    cache: BriefCache[str, int] = BriefCache(seconds=1, clock=lambda: now)
    cache.put("a", 1)
    now = 0.99
    assert cache.get("a") == 1
    now = 1.0
    assert cache.get("a") is None


def test_the_oldest_value_makes_room() -> None:
    cache: BriefCache[str, int] = BriefCache(seconds=1, max_entries=2, clock=lambda: 0.0)
    for value, key in enumerate("abac"):
        cache.put(key, value)
    assert [cache.get(key) for key in "abc"] == [2, None, 3]


def test_zero_seconds_remember_nothing() -> None:
    cache: BriefCache[str, int] = BriefCache(seconds=0)
    cache.put("a", 1)
    assert cache.get("a") is None
