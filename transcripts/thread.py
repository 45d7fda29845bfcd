"""One path through messages that point to the one before: what was last on the screen."""

from __future__ import annotations

from collections.abc import Mapping


def path_to(leaf: str, parents: Mapping[str, str | None]) -> list[str] | None:
    """Return the keys from the root to `leaf`.

    A parent that is not a key itself ends the path: what came before it is not there. None when the pointers
    go in a circle.
    """
    path: list[str] = []
    seen: set[str] = set()
    at: str | None = leaf
    while at is not None and at in parents:
        if at in seen:
            return None
        seen.add(at)
        path.append(at)
        at = parents[at]
    path.reverse()
    return path
