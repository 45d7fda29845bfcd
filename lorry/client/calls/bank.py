"""Calls about the tenant's question bank."""

from __future__ import annotations

from lorry.client.calls.call import Call, model
from lorry.client.results import TenantBank

_PATH = "/v1/bank"


def get() -> Call[TenantBank]:
    """Read what is asked."""
    return Call(method="GET", path=_PATH, read=model(TenantBank))


def put(document: str, *, by: str) -> Call[TenantBank]:
    """Make a document the tenant's bank."""
    return Call(method="PUT", path=_PATH, json={"document": document, "by": by}, read=model(TenantBank))


def reset(*, by: str) -> Call[TenantBank]:
    """Go back to the bank that Lorry ships."""
    return Call(method="DELETE", path=_PATH, params={"by": by}, read=model(TenantBank))
