from __future__ import annotations

from serving.engine.cache_paths import CachePaths


def test_a_path_stays_until_it_is_renewed_and_never_comes_back() -> None:
    paths, seen = CachePaths(remembered=2), []
    assert paths.of("a", "/a") == paths.of("a", "/a") == "/a"
    for name in ("a", "b", "a", "c", "a", "b", "c", "a"):
        before = {each: paths.of(each, f"/{each}") for each in "abc"}
        seen.append(before[name])
        paths.renew(name)
        assert paths.of(name, f"/{name}") not in seen
    assert len(set(seen)) == len(seen)
