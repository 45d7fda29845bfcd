"""What travels between the registry and who steers it."""

from __future__ import annotations

from pydantic import Field

from registry.manifest import Frozen, VersionId


class AliasMove(Frozen):
    """A compare-and-swap: `expected_version_id` None means that the alias must not exist yet."""

    version_id: VersionId
    expected_version_id: VersionId | None = None
    why: str = Field(default="", max_length=1000, pattern=r"^[^\x00]*$")
