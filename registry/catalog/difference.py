"""What changed between two versions: by field, numbers beside numbers, sets by their members.

Manifests are compared without the fields that differ between any two versions (their names and times).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from registry.catalog.listings import Listings
from registry.catalog.schemas import Change, Difference, MembersChanged, VersionDetail, VersionName
from registry.manifest import AdapterRef

_NAMES = frozenset({"owner", "adapter", "version", "version_id", "created_at", "format"})
_SETS = frozenset({"lora.target_modules", "lineage.transcript_ids"})


class Comparison:
    """Compares versions."""

    def __init__(self, listings: Listings) -> None:
        self._listings = listings

    async def compare(self, old: AdapterRef, new: AdapterRef) -> Difference:
        """Return what changed from one version to another.

        Raises:
            AdapterNotFound, AliasNotFound, VersionNotFound: for the first name that is unknown.
        """
        sides = [await self._listings.show_version(ref) for ref in (old, new)]
        return difference(*sides)


def difference(old: VersionDetail, new: VersionDetail) -> Difference:
    """Return every field that differs, in the order of names; an erased version has no content to compare."""
    before, after = dict(_fields(old)), dict(_fields(new))
    changes, members = [], []
    for field in sorted(before.keys() | after.keys()):
        one, other = before.get(field), after.get(field)
        if field in _SETS:
            had, has = set(one or ()), set(other or ())
            if had != has:
                members.append(
                    MembersChanged(field=field, added=tuple(sorted(has - had)), removed=tuple(sorted(had - has)))
                )
        elif one != other or type(one) is not type(other):
            changes.append(Change(field=field, old=one, new=other))
    return Difference(old=_name(old), new=_name(new), changes=tuple(changes), members=tuple(members))


def _name(version: VersionDetail) -> VersionName:
    return VersionName(version_id=version.version_id, version=version.version, state=version.state)


def _fields(version: VersionDetail) -> Iterator[tuple[str, Any]]:
    """Yield dotted path → value of everything that is compared; files go by their names."""
    content: dict[str, Any] = {}
    if version.manifest is not None:
        content = version.manifest.model_dump(mode="json", exclude=set(_NAMES))
        content["files"] = {file.path: file.model_dump(exclude={"path"}) for file in version.manifest.files}
    if version.report is not None:
        content["report"] = version.report.get("report")
    yield from _flat("", content)


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name in value:
            yield from _flat(f"{path}.{name}" if path else str(name), value[name])
    elif path:
        yield path, value
