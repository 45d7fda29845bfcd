"""Walking batches: users are taken in hand in adapter order, so many at once, and each is brought to an end.

A user's failure is that user's: what another attempt may cure is tried again later, and a part that is away is waited
for, with nobody asked about meanwhile who needs it, and nobody's attempts used up. A database that is away is waited
for, too, in whatever is being done; what comes too late then is dropped, since another worker has the user by that
time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from kit.errors import DatabaseUnavailable, LorryError
from kit.workers import backoff
from serving.extraction.engine_client import EngineClient
from serving.jobs.delivery import settle
from serving.jobs.errors import TookTooLong
from serving.jobs.extraction import UserExtraction, place_of
from serving.jobs.hints import NextAdapters
from serving.jobs.metrics import ExtractionMetrics
from serving.jobs.outages import Outages
from serving.jobs.outcome import Fate, explain, fate_of
from serving.jobs.repository import BatchRepository
from serving.jobs.settings import ExtractionWorkerSettings
from serving.jobs.states import UserState
from serving.jobs.turns import share
from serving.jobs.users.repository import Hand, Taken, UserRepository
from serving.jobs.vault import Vault

T = TypeVar("T")
_PATIENCE_SECONDS, _MAX_PATIENCE_SECONDS = 0.2, 5.0
_WAIT_SECONDS = 2.0
_OUTAGE_PAUSES = 6
_log = logging.getLogger(__name__)


class Walk:
    """Every user whom one worker has in hand."""

    def __init__(
        self,
        settings: ExtractionWorkerSettings,
        *,
        database: Database,
        outages: Outages,
        extraction: UserExtraction,
        vault: Vault,
        hints: NextAdapters,
        metrics: ExtractionMetrics,
    ) -> None:
        self._settings = settings
        self._database = database
        self._outages = outages
        self._extraction = extraction
        self._vault = vault
        self._hints = hints
        self._metrics = metrics
        self._tasks: dict[Hand, asyncio.Task[None]] = {}
        self._missing: set[Hand] = set()
        self._books = asyncio.Lock()  # between taking users in hand and knowing of them, nobody may compare
        self._closed = False
        self.free = asyncio.Event()

    @property
    def in_hand(self) -> int:
        """How many users are in hand."""
        return len(self._tasks)

    async def take(self) -> None:
        """Take as many users in hand as there are places for, unless a part is away that everybody needs."""
        self.free.clear()
        places = self._settings.extraction_users_at_once - len(self._tasks)
        if self._closed or places < 1 or self._outages.is_total:
            return
        async with self._books:
            async with self._database.transaction() as session:
                users = UserRepository(session)
                shares = share(await BatchRepository(session).runnable(), free=places)
                taken = [
                    each
                    for batch_id, count in shares.items()
                    for each in await users.claim(batch_id, worker_id=self._settings.worker_id, limit=count)
                ]
                ahead = self._settings.extraction_prefetch
                upcoming = [await users.upcoming(batch_id, limit=ahead) for batch_id in shares if ahead]
            for each in taken:
                self._begin(each)
        self._metrics.set_in_hand(len(self._tasks))
        self._hints.expect(version_id for found in upcoming for _, version_id in found)

    async def look_after(self) -> None:
        """Let go of users who were canceled, are erased or are others' by now, and let those wait whom nobody knows.

        Whoever erases a user sees by their row that nothing is done here for them any more.
        """
        async with self._books:
            async with self._database.transaction() as session:
                users = UserRepository(session)
                await users.put_back_all(self._settings.worker_id, but=self._tasks.keys())
                ours = await users.held_by(self._settings.worker_id)
                erased = await users.being_erased(self._settings.worker_id)
            missing = {hand for hand in self._tasks if hand not in ours}
            # One that is missing for the first time may just have been delivered.
            for hand in (missing & self._missing) | (erased & self._tasks.keys()):
                self._tasks[hand].cancel()
            self._missing = missing

    def let_go(self) -> None:
        """Let go of everybody without writing anything down: others have them by now."""
        for task in self._tasks.values():
            task.cancel()

    async def close(self, *, within_seconds: float) -> None:
        """Take nobody any more; let those in hand come to their end, and those who do not in time wait for another."""
        self._closed = True
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=within_seconds)
        remaining = list(self._tasks.values())
        for task in remaining:
            task.cancel()
        await asyncio.gather(*remaining, return_exceptions=True)

    def _begin(self, taken: Taken) -> None:
        task = self._tasks[taken.hand] = asyncio.create_task(self._bring_to_an_end(taken))

        def end(task: asyncio.Task[None]) -> None:
            del self._tasks[taken.hand]
            if task.cancelled():
                self._metrics.count_user("dropped")
            self._metrics.set_in_hand(len(self._tasks))
            self.free.set()

        task.add_done_callback(end)

    async def _bring_to_an_end(self, taken: Taken) -> None:
        try:
            await self._extract(taken)
        except Exception:  # a mistake of ours; the user waits for another turn
            _log.exception("a user's end could not be written down")

    async def _extract(self, taken: Taken) -> None:
        engine: EngineClient | None = None
        try:
            async with asyncio.timeout(self._settings.extraction_user_seconds):
                manifest = await self._extraction.resolve(taken)
                engine = self._outages.engine_for(manifest)
                self._outages.require(engine)
                values = await self._extraction.run(taken, manifest)
        except TimeoutError:
            await self._sort(taken, TookTooLong(), engine)
        except LorryError as exc:
            await self._sort(taken, exc, engine)
        except Exception as exc:  # a mistake of ours must end one user, not the worker
            _log.exception("extracting a user failed unexpectedly")
            await self._sort(taken, exc, engine)
        else:
            await self._deliver(taken, UserState.DONE, values)

    async def _sort(self, taken: Taken, exc: Exception, engine: EngineClient | None) -> None:
        """Decide what a failure means for its user, and write it down; `engine` is the one that was to answer."""
        answers = engine is None or await self._outages.answers(engine)
        fate = fate_of(exc, engine_answers=answers)
        attempts = taken.attempts + 1
        if fate is Fate.AGAIN and attempts >= self._settings.extraction_attempts:
            fate = Fate.FAILED
        _log.info("extracting a user failed: %s, %s", type(exc).__name__, fate.value)
        match fate:
            case Fate.WAITS:
                await self._put_back(taken, self._pause(answers=answers), {})
                self._metrics.count_user("waits")
            case Fate.AGAIN:
                pause = backoff(
                    attempts,
                    base_seconds=self._settings.extraction_backoff_seconds,
                    max_seconds=self._settings.extraction_max_backoff_seconds,
                )
                await self._put_back(taken, pause, {"attempts": attempts, "error": explain(exc)})
                self._metrics.count_user("again")
            case Fate.FAILED:
                await self._deliver(taken, UserState.FAILED, {"attempts": attempts, "error": explain(exc)})

    def _pause(self, *, answers: bool) -> timedelta:
        """Return how long who waits is left alone: longer, where coming at once would keep places from others."""
        in_the_way = not answers and not self._outages.is_total
        pauses = _OUTAGE_PAUSES * self._settings.extraction_backoff_seconds
        return timedelta(seconds=pauses if in_the_way else _WAIT_SECONDS)

    async def _deliver(self, taken: Taken, state: UserState, values: dict[str, object]) -> None:
        async def write(session: AsyncSession) -> bool:
            return await settle(session, taken.hand, worker_id=self._settings.worker_id, state=state, values=values)

        if await self._patiently(write):
            self._metrics.count_user("done" if state is UserState.DONE else "failed")
            return
        self._metrics.count_user("dropped")
        if state is UserState.DONE:
            await self._remove(taken)

    async def _remove(self, taken: Taken) -> None:
        """Remove what was put away for a user who was not ours any more; what remains is swept with the batch."""
        try:
            await self._vault.remove(place_of(taken))
        except LorryError as exc:
            _log.warning("a result that came too late was not removed: %s", type(exc).__name__)

    async def _put_back(self, taken: Taken, pause: timedelta, values: dict[str, object]) -> None:
        async def write(session: AsyncSession) -> bool:
            due = await BatchRepository(session).now() + pause
            return await UserRepository(session).put_back(
                taken.hand, worker_id=self._settings.worker_id, values={"not_before": due, **values}
            )

        await self._patiently(write)

    async def _patiently(self, write: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Write something down once the database answers."""
        pause = _PATIENCE_SECONDS
        while True:
            try:
                async with self._database.transaction() as session:
                    return await write(session)
            except DatabaseUnavailable:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MAX_PATIENCE_SECONDS)
