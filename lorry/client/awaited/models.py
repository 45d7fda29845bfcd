"""Models: adapters with a live version, as OpenAI's API names them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from lorry.client.awaited.wire import AsyncWire
from lorry.client.calls import models as calls
from lorry.client.results import Model


class AsyncModels:
    """The tenant's models."""

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire

    def list(self) -> AsyncIterator[Model]:
        """Yield the tenant's models."""
        return self._wire.pages(lambda cursor: calls.list_page(cursor=cursor))

    async def get(self, name: str) -> Model:
        """Return one model by its id, ``users/<user>``; the engine is told that it may be asked next.

        Raises:
            NotFound: when the tenant has no such model.
            Conflict: when the version may not serve.
        """
        return await self._wire.send(calls.get(name))
