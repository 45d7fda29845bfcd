"""A user's profile: the newest that was extracted, or a new one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kit.database import Database
from serving.errors import ExtractionBusy, ProfileNotExtracted
from serving.extraction.bank import Bank
from serving.extraction.engine_client import EngineClient
from serving.extraction.extract import extract_profile
from serving.extraction.profile import Profile
from serving.extraction.repository import ProfileRepository
from serving.extraction.settings import ExtractionSettings
from serving.gateway.adapters import Adapters
from transcripts.search import Passage, search_user_turns
from transcripts.store import TranscriptStore


class Profiles:
    """Reads profiles from the database and extracts them through the engine."""

    def __init__(
        self,
        database: Database,
        adapters: Adapters,
        engine: EngineClient,
        *,
        bank: Bank,
        settings: ExtractionSettings,
        at_once: int,
    ) -> None:
        self._database = database
        self._adapters = adapters
        self._engine = engine
        self._bank = bank
        self._settings = settings
        self._places = asyncio.Semaphore(at_once)

    async def require(self, tenant: str, user: str) -> Profile:
        """Return the newest profile.

        Raises:
            ProfileNotExtracted: when the user has a live adapter that was never asked.
            UnknownUser, NoAdapter: when there is nothing to ask.
        """
        async with self._database.transaction() as session:
            profile = await ProfileRepository(session).latest(tenant, user)
        if profile is None:
            await self._adapters.require_live(tenant, user)
            raise ProfileNotExtracted(
                f"user {user!r} has an adapter but no profile yet: POST /v1/users/{user}/profile extracts it"
            )
        return profile

    async def extract(self, tenant: str, user: str) -> Profile:
        """Extract a profile with the live version, keep it as the newest, and return it.

        Raises:
            UnknownUser, NoAdapter: when there is nothing to ask.
            ExtractionBusy: when this process runs as many extractions as it may.
            EngineCallError: when the engine refuses or fails; no profile is kept then.
        """
        manifest = await self._adapters.require_live(tenant, user)
        if self._places.locked():
            raise ExtractionBusy
        async with self._places:
            async with self._database.transaction() as session:
                transcripts = await TranscriptStore(session).list(tenant, user)
            profile = await extract_profile(
                engine=self._engine,
                search=TurnSearch(self._database, tenant=tenant, user=user),
                transcripts=transcripts,
                manifest=manifest,
                bank=self._bank,
                settings=self._settings,
            )
            async with self._database.transaction() as session:
                await ProfileRepository(session).add(tenant, profile)
        return profile


class TurnSearch:
    """Search over one user's own turns, each in a short transaction of its own."""

    def __init__(self, database: Database, *, tenant: str, user: str) -> None:
        self._database = database
        self._tenant = tenant
        self._user = user

    async def __call__(self, query: str, *, limit: int) -> Sequence[Passage]:
        """Return at most `limit` turns that share words with `query`, best first."""
        async with self._database.transaction() as session:
            return await search_user_turns(session, self._tenant, self._user, query, limit)
