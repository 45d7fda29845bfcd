"""Extraction with its stores: a user's transcripts in, a profile made, the profile kept."""

from __future__ import annotations

from collections.abc import Sequence

from kit.database import Database
from registry.manifest import Manifest
from serving.extraction.bank import Bank
from serving.extraction.engine_client import EngineClient
from serving.extraction.extract import OnProgress, extract_profile
from serving.extraction.profile import Profile
from serving.extraction.repository import ProfileRepository
from serving.extraction.settings import ExtractionSettings
from transcripts.search import Passage, search_user_turns
from transcripts.store import TranscriptStore


class Extractor:
    """What both the gateway and the command line extract with."""

    def __init__(self, database: Database, engine: EngineClient, *, bank: Bank, settings: ExtractionSettings) -> None:
        self._database = database
        self._engine = engine
        self._settings = settings
        self.bank = bank

    async def latest(self, tenant: str, user: str) -> Profile | None:
        """Return the newest profile that is kept; None when there is none."""
        async with self._database.transaction() as session:
            return await ProfileRepository(session).latest(tenant, user)

    async def extract(self, manifest: Manifest, *, on_progress: OnProgress | None = None) -> Profile:
        """Ask the version's adapter about its owner, keep the profile as the newest, and return it.

        Raises:
            EngineCallError: when the engine refuses or fails; no profile is kept then.
        """
        tenant, user = manifest.owner.tenant, manifest.owner.user
        async with self._database.transaction() as session:
            transcripts = await TranscriptStore(session).list(tenant, user)
        profile = await extract_profile(
            engine=self._engine,
            search=TurnSearch(self._database, tenant=tenant, user=user),
            transcripts=transcripts,
            manifest=manifest,
            bank=self.bank,
            settings=self._settings,
            on_progress=on_progress,
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
