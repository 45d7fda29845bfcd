"""The question bank: what the tenant's users are asked."""

from __future__ import annotations

from lorry.client.awaited.wire import AsyncWire
from lorry.client.calls import bank as calls
from lorry.client.results import TenantBank


class AsyncBank:
    """The tenant's question bank; `by` is your own name for who changes it."""

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire

    async def get(self) -> TenantBank:
        """Return what is asked: the tenant's own bank, or the one that Lorry ships."""
        return await self._wire.send(calls.get())

    async def put(self, document: str, *, by: str) -> TenantBank:
        """Make a YAML document (docs/profiles.md) the tenant's bank from the next extraction on.

        Raises:
            Invalid: when it cannot be used; `field` names the entry.
        """
        return await self._wire.send(calls.put(document, by=by))

    async def reset(self, *, by: str) -> TenantBank:
        """Go back to the bank that Lorry ships; the revisions before are kept."""
        return await self._wire.send(calls.reset(by=by))
