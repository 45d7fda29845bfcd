"""Which engine answers for a version: that of its base. An engine serves one base, so several bases have several."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal, Self

from kit.together import all_of
from registry.manifest import Manifest
from serving.extraction.engine_client import EngineClient

EngineName = Literal["default", "other"]
"""What measures call an engine: bases come and go, and a label's values must not."""


class Engines:
    """The default engine, and those that bases have of their own."""

    def __init__(self, default: EngineClient, of_bases: Mapping[str, EngineClient] | None = None) -> None:
        """Use clients that are connected.

        Args:
            default: answers for every base that has no engine of its own, and as the base itself.
            of_bases: a base's id, as the registry has it → its engine; several ids may share one, or the default.
        """
        self.default = default
        self._of_bases = dict(of_bases or {})

    @classmethod
    @asynccontextmanager
    async def connected(
        cls, url: str, *, of_bases: Mapping[str, str], connect: Callable[[str, EngineName], EngineClient]
    ) -> AsyncIterator[Self]:
        """Connect while the block runs, once to each address.

        Args:
            url: of the default engine.
            of_bases: a base's id → the URL of its engine.
            connect: makes the client of an address, which measures call so.
        """
        async with AsyncExitStack() as stack:
            clients = {url: await stack.enter_async_context(connect(url, "default"))}
            for other in of_bases.values():
                if other not in clients:
                    clients[other] = await stack.enter_async_context(connect(other, "other"))
            yield cls(clients[url], {base_id: clients[other] for base_id, other in of_bases.items()})

    @property
    def all(self) -> tuple[EngineClient, ...]:
        """Every engine once, the default first."""
        return tuple(dict.fromkeys((self.default, *self._of_bases.values())))

    def of(self, manifest: Manifest) -> EngineClient:
        """Return who answers for a version.

        Its base's id decides: the registry lets an id stand for one base only, and a version be published under no
        other. The engine compares the digests as well, and says no (`BaseWithoutEngine`) when it serves another base.
        """
        return self._of_bases.get(manifest.base.id, self.default)

    def name(self, engine: EngineClient) -> EngineName:
        """Return what measures call an engine."""
        return "default" if engine is self.default else "other"

    async def away(self) -> list[str]:
        """Return, in words, every engine that does not answer its health check now."""
        healthy = dict(zip(self.all, await all_of(engine.is_healthy() for engine in self.all), strict=True))
        found = [] if healthy[self.default] else ["the engine"]
        return found + [
            f"the engine of base {base_id}" for base_id, each in self._of_bases.items() if not healthy[each]
        ]
