"""What an API key may be used for. A key has some of these, or all that there are and will be."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from serving.errors import UnknownScope

EVERYTHING: Final = "*"


class Scope(StrEnum):
    """One thing that a key may be used for."""

    PROFILES_READ = "profiles:read"
    PROFILES_WRITE = "profiles:write"
    QUERY = "query"
    CHAT = "chat"
    TRANSCRIPTS_READ = "transcripts:read"
    TRANSCRIPTS_WRITE = "transcripts:write"
    TRAININGS_READ = "trainings:read"
    TRAININGS_WRITE = "trainings:write"
    ADAPTERS_READ = "adapters:read"
    ADAPTERS_WRITE = "adapters:write"
    EXTRACTIONS_READ = "extractions:read"
    EXTRACTIONS_WRITE = "extractions:write"
    USAGE_READ = "usage:read"
    ERASE = "erase"


def check_scopes(names: Iterable[str]) -> tuple[str, ...]:
    """Return scopes as they are stored: sorted, each once; ``*`` swallows all others.

    Raises:
        UnknownScope: for a name that is none, and when there is no scope at all.
    """
    found = sorted(set(names))
    known = {scope.value for scope in Scope}
    for name in found:
        if name != EVERYTHING and name not in known:
            raise UnknownScope(
                f"{name[:64]!r} is no scope; scopes are {', '.join(sorted(known))}, and *", field="scope"
            )
    if not found:
        raise UnknownScope("a key needs at least one scope", field="scope")
    return (EVERYTHING,) if EVERYTHING in found else tuple(found)
