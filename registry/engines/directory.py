"""The engine directory: engines say that they live and what they hold, and hear what they must not serve."""

from __future__ import annotations

import asyncio
import logging

from kit.database import Database
from registry.engines.repository import EngineRepository
from registry.engines.schemas import EnginePage, EngineSummary, Heartbeat, Holder, Holdings, Orders, Registration, Tier
from registry.errors import EngineAlive, EngineNotFound, EngineSuperseded, VersionNotFound

_log = logging.getLogger(__name__)
_GONE = "this engine is not registered; register, and report what is held"
_TAKEN = "a living engine has this id; its place is free once it has left, or was silent for its lease"


class EngineDirectory:
    """Keeps one row an engine. Every comparison of times is the database's.

    The protocol is level-triggered: an answer holds everything that the engine must know now, so that a lost one
    does no harm, and an engine that was away for a year needs nothing but the next one.
    """

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        """Keep the directory in `database`; an engine that is silent for `lease_seconds` has lapsed."""
        self._database = database
        self._lease_seconds = lease_seconds

    async def register(self, engine_id: str, registration: Registration, *, actor: str) -> Orders:
        """Take in an engine that has started; the one that had its id before is superseded.

        An engine calls this before it serves, with what lies on its disk: the answer names what was erased meanwhile.

        Raises:
            EngineSuperseded: when a living engine has its id, and this is not the same one started again.
        """
        tiers, digest = await asyncio.to_thread(_described, registration.holdings)
        async with self._database.transaction() as session:
            repository = EngineRepository(session, lease_seconds=self._lease_seconds)
            if not await repository.put_engine(engine_id, registration):
                raise EngineSuperseded(_TAKEN)
            await repository.match_base(engine_id)
            await repository.put_holdings(engine_id, tiers, digest=digest)
            await repository.put_leases(engine_id, {})
            await repository.forget_left()
            repository.record(actor, "register-engine", after=engine_id)
            withheld, is_all = await repository.withheld(engine_id)
        orders = Orders(withheld=tuple(withheld), report=not is_all, lease_seconds=self._lease_seconds)
        _log.info("engine %s registered", engine_id)
        return orders

    async def heartbeat(self, engine_id: str, heartbeat: Heartbeat) -> Orders:
        """Note that an engine lives, and tell it which of the versions it holds must not be served, or need not stay.

        Raises:
            EngineNotFound: when it is not registered (any more): it has to register.
            EngineSuperseded: when another one, which is alive, has its id.
        """
        held = None if heartbeat.holdings is None else await asyncio.to_thread(_described, heartbeat.holdings)
        async with self._database.transaction() as session:
            repository = EngineRepository(session, lease_seconds=self._lease_seconds)
            known = await repository.touch(engine_id, heartbeat.incarnation)
            if known is None:
                raise await _not_yours(repository, engine_id)
            report = known != heartbeat.holdings_digest
            if report and held is not None:
                tiers, digest = held
                await repository.put_holdings(engine_id, tiers, digest=digest)
                await repository.match_base(engine_id)
                report = digest != heartbeat.holdings_digest
            await repository.put_leases(engine_id, heartbeat.leases)
            withheld, is_all = await repository.withheld(engine_id)
            superseded = await repository.superseded(engine_id)
        return Orders(
            withheld=tuple(withheld),
            superseded=tuple(superseded),
            report=report or not is_all,
            lease_seconds=self._lease_seconds,
        )

    async def leave(self, engine_id: str, incarnation: str, *, actor: str) -> None:
        """Note that an engine stops; leaving again is no error.

        Raises:
            EngineSuperseded: when another one, which is alive, has its id.
        """
        async with self._database.transaction() as session:
            repository = EngineRepository(session, lease_seconds=self._lease_seconds)
            if await repository.leave(engine_id, incarnation):
                repository.record(actor, "leave-engine", after=engine_id)
            elif await repository.get_state(engine_id) == "alive":
                raise EngineSuperseded

    async def forget(self, engine_id: str, *, actor: str) -> None:
        """Remove an engine that lapsed or left; should it come back, it registers like a new one.

        Raises:
            EngineNotFound: when there is none of this id.
            EngineAlive: when it is alive.
        """
        async with self._database.transaction() as session:
            repository = EngineRepository(session, lease_seconds=self._lease_seconds)
            if await repository.forget(engine_id):
                repository.record(actor, "forget-engine", before=engine_id)
                return
            state = await repository.get_state(engine_id)
        raise EngineNotFound(f"there is no engine {engine_id}") if state is None else EngineAlive

    async def list_engines(self, *, cursor: str | None, limit: int) -> EnginePage:
        """Return one page of engines, by id, in every state."""
        async with self._database.transaction() as session:
            repository = EngineRepository(session, lease_seconds=self._lease_seconds)
            found = await repository.list_engines(after=cursor or "", limit=limit + 1)
        return EnginePage(engines=tuple(found[:limit]), next_cursor=found[limit - 1].id if len(found) > limit else None)

    async def get(self, engine_id: str) -> EngineSummary:
        """Return one engine.

        Raises:
            EngineNotFound: when there is none of this id.
        """
        async with self._database.transaction() as session:
            repository = EngineRepository(session, lease_seconds=self._lease_seconds)
            found = await repository.list_engines(after="", limit=1, engine_id=engine_id)
        if not found:
            raise EngineNotFound(f"there is no engine {engine_id}", field="engine_id")
        return found[0]

    async def holders(self, version_id: str) -> list[Holder]:
        """Return the engines that hold a version, with the requests that run on it, as they last said.

        Raises:
            VersionNotFound: when the registry does not know that version and nobody holds it.
        """
        async with self._database.transaction() as session:
            repository = EngineRepository(session, lease_seconds=self._lease_seconds)
            found = await repository.holders(version_id)
            if not found and await repository.get_version(version_id) is None:
                raise VersionNotFound(f"there is no version {version_id}", field="version_id")
        return found

    async def leases(self, version_id: str) -> int:
        """Return how many requests run on a version now, on engines that are alive; at most a heartbeat old."""
        async with self._database.transaction() as session:
            repository = EngineRepository(session, lease_seconds=self._lease_seconds)
            return (await repository.leases([version_id])).get(version_id, 0)

    async def count(self) -> dict[str, int]:
        """Return how many engines are alive, lapsed and gone."""
        async with self._database.transaction() as session:
            return await EngineRepository(session, lease_seconds=self._lease_seconds).count_engines()


def _described(holdings: Holdings) -> tuple[dict[str, Tier], str]:
    """Return holdings by version, with their digest; of 100,000, in a thread."""
    return holdings.tiers(), holdings.digest


async def _not_yours(repository: EngineRepository, engine_id: str) -> EngineNotFound | EngineSuperseded:
    """Tell one who lost its place to a living engine from one who may take its place again."""
    return EngineSuperseded() if await repository.get_state(engine_id) == "alive" else EngineNotFound(_GONE)
