"""The engine directory from outside: what an engine says of itself, what operators ask."""

from __future__ import annotations

from kit.names import check_name
from registry.client.transport import Transport
from registry.engines.schemas import (
    EnginePage,
    EngineSummary,
    Farewell,
    Heartbeat,
    Holder,
    Holdings,
    Orders,
    Presence,
    Registration,
    Tier,
    Withheld,
)

__all__ = [
    "EnginePage",
    "EngineSummary",
    "EnginesClient",
    "Farewell",
    "Heartbeat",
    "Holder",
    "Holdings",
    "Orders",
    "Presence",
    "Registration",
    "Tier",
    "Withheld",
]


class EnginesClient:
    """`RegistryClient.engines`. What an engine says of itself is sent once: the next heartbeat says it again."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def register(
        self, engine_id: str, registration: Registration, *, timeout_seconds: float | None = None
    ) -> Orders:
        """Enter the directory; the engine that had this id before is superseded.

        Raises:
            EngineSuperseded: when a living engine has this id, and this is not the same one started again.
            RegistryUnavailable: when the registry does not answer the one attempt.
        """
        return await self._transport.call(
            Orders, "PUT", _path(engine_id), body=registration, timeout_seconds=timeout_seconds, attempts=1
        )

    async def heartbeat(self, engine_id: str, heartbeat: Heartbeat, *, timeout_seconds: float | None = None) -> Orders:
        """Say that the engine lives.

        Raises:
            EngineNotFound: when it has to register (again).
            EngineSuperseded: when another engine, which is alive, has this id.
            RegistryUnavailable: when the registry does not answer the one attempt.
        """
        path = f"{_path(engine_id)}/heartbeat"
        return await self._transport.call(
            Orders, "POST", path, body=heartbeat, timeout_seconds=timeout_seconds, attempts=1
        )

    async def leave(self, engine_id: str, farewell: Farewell, *, timeout_seconds: float | None = None) -> None:
        """Say that the engine stops.

        Raises:
            RegistryUnavailable: when the registry does not answer the one attempt.
        """
        path = f"{_path(engine_id)}/leave"
        await self._transport.call(
            dict[str, str], "POST", path, body=farewell, timeout_seconds=timeout_seconds, attempts=1
        )

    async def list(self, *, cursor: str | None = None, limit: int = 100) -> EnginePage:
        """Return one page of engines, by id; pass its `next_cursor` for the next one."""
        params = {"limit": limit, **({} if cursor is None else {"cursor": cursor})}
        return await self._transport.call(EnginePage, "GET", "/v1/engines", params=params)

    async def get(self, engine_id: str) -> EngineSummary:
        """Return one engine.

        Raises:
            EngineNotFound: when there is none of this id.
        """
        return await self._transport.call(EngineSummary, "GET", _path(engine_id))

    async def forget(self, engine_id: str) -> None:
        """Remove an engine that lapsed or left.

        Raises:
            EngineNotFound, EngineAlive: when there is none, or it has not stopped.
        """
        await self._transport.call(dict[str, str], "DELETE", _path(engine_id))

    async def holders(self, version_id: str) -> tuple[Holder, ...]:
        """Return the engines that hold a version.

        Raises:
            VersionNotFound: when there is no such version.
        """
        path = f"/v1/versions/{check_name(version_id, field='version_id')}/holders"
        return await self._transport.call(tuple[Holder, ...], "GET", path)


def _path(engine_id: str) -> str:
    return f"/v1/engines/{check_name(engine_id, field='engine_id')}"
