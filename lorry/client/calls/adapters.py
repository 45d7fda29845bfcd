"""Calls about adapters: the registry's API, for one tenant. What the registry answers is read as what it is there."""

from __future__ import annotations

from typing import Any

from lorry.client.calls.call import PAGE_ROWS, SHARED, Call, Page, given, model, page, segment
from registry.catalog.schemas import (
    AdapterDetail,
    AdapterSummary,
    Alias,
    Difference,
    FoundVersion,
    VersionDetail,
    VersionSummary,
)
from registry.lifecycle.schemas import AliasHistoryEntry, AliasMoved, Suspension, VersionState

_PATH = "/v1/adapters"


def list_page(
    *, user: str | None, base: str | None, alias: str | None, suspended: bool | None, cursor: str | None
) -> Call[Page[AdapterSummary]]:
    """Read one page of the tenant's adapters."""
    params = given(user_id=user, base=base, alias=alias, suspended=suspended, cursor=cursor, limit=PAGE_ROWS)
    return Call(method="GET", path=_PATH, params=params, read=page(AdapterSummary, "adapters"))


def find_versions(
    *, transcript: str | None, base: str | None, user: str | None, cursor: str | None
) -> Call[Page[FoundVersion]]:
    """Read one page of versions by what they came from."""
    params = given(transcript=transcript, base=base, user_id=user, cursor=cursor, limit=PAGE_ROWS)
    return Call(method="GET", path="/v1/adapter-versions", params=params, read=page(FoundVersion, "versions"))


def get(user: str, adapter: str) -> Call[AdapterDetail]:
    """Read one adapter."""
    return Call(method="GET", path=_adapter(user, adapter), read=model(AdapterDetail))


def versions(user: str, adapter: str, *, cursor: str | None) -> Call[Page[VersionSummary]]:
    """Read one page of an adapter's versions."""
    params = given(cursor=cursor, limit=PAGE_ROWS)
    path = f"{_adapter(user, adapter)}/versions"
    return Call(method="GET", path=path, params=params, read=page(VersionSummary, "versions"))


def version(user: str, adapter: str, selector: str) -> Call[VersionDetail]:
    """Read one version."""
    return Call(method="GET", path=_version(user, adapter, selector), read=model(VersionDetail))


def difference(user: str, adapter: str, *, old: str, new: str) -> Call[Difference]:
    """Compare two versions."""
    path = f"{_adapter(user, adapter)}/difference"
    return Call(method="GET", path=path, params={"old": old, "new": new}, read=model(Difference))


def history(user: str, adapter: str, *, alias: str | None, cursor: str | None) -> Call[Page[AliasHistoryEntry]]:
    """Read one page of the moves of aliases."""
    params = given(alias=alias, cursor=cursor, limit=PAGE_ROWS)
    path = f"{_adapter(user, adapter)}/history"
    return Call(method="GET", path=path, params=params, read=page(AliasHistoryEntry, "moves"))


def get_alias(user: str, adapter: str, alias: str) -> Call[Alias]:
    """Read what an alias names."""
    return Call(method="GET", path=_alias(user, adapter, alias), read=model(Alias))


def move_alias(
    user: str, adapter: str, alias: str, *, version_id: str, expected_version_id: str | None, why: str
) -> Call[Alias]:
    """Move an alias by compare-and-swap."""
    body = {"version_id": version_id, "expected_version_id": expected_version_id, "why": why}
    return Call(method="PUT", path=_alias(user, adapter, alias), json=body, read=model(Alias))


def promote(
    user: str,
    adapter: str,
    *,
    source: str,
    target: str,
    version_id: str | None,
    expected_version_id: str | None,
    why: str,
) -> Call[AliasMoved]:
    """Let one alias name what another names."""
    body = {"source": source, "target": target, "why": why}
    body |= given(version_id=version_id, expected_version_id=expected_version_id)
    return _moved(f"{_adapter(user, adapter)}/promote", body)


def rollback(user: str, adapter: str, *, alias: str, expected_version_id: str | None, why: str) -> Call[AliasMoved]:
    """Let an alias name what it named before."""
    body = {"alias": alias, "why": why} | given(expected_version_id=expected_version_id)
    return _moved(f"{_adapter(user, adapter)}/rollback", body)


def suspend(user: str, adapter: str, *, why: str) -> Call[Suspension]:
    """Stop an adapter from serving."""
    path = f"{_adapter(user, adapter)}/suspend"
    return Call(method="POST", path=path, json={"why": why}, read=model(Suspension))


def resume(user: str, adapter: str, *, why: str) -> Call[AdapterDetail]:
    """Let a suspended adapter serve again."""
    path = f"{_adapter(user, adapter)}/resume"
    return Call(method="POST", path=path, json={"why": why}, read=model(AdapterDetail))


def steer_version(user: str, adapter: str, selector: str, verb: str, *, why: str) -> Call[VersionState]:
    """Suspend, resume or retire a version."""
    path = f"{_version(user, adapter, selector)}/{verb}"
    return Call(method="POST", path=path, json={"why": why}, read=model(VersionState))


def _moved(path: str, body: dict[str, Any]) -> Call[AliasMoved]:
    return Call(method="POST", path=path, json=body, read=model(AliasMoved))


def _adapter(user: str, adapter: str) -> str:
    owner = SHARED if user == SHARED else segment(user, field="user_id")
    return f"{_PATH}/{owner}/{segment(adapter, field='adapter')}"


def _version(user: str, adapter: str, selector: str) -> str:
    return f"{_adapter(user, adapter)}/versions/{segment(selector, field='selector')}"


def _alias(user: str, adapter: str, alias: str) -> str:
    return f"{_adapter(user, adapter)}/aliases/{segment(alias, field='alias')}"
