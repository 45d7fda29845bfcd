"""A user's profile: the newest that was extracted, or a new one."""

from __future__ import annotations

import asyncio
from collections import Counter

from serving.errors import ExtractionBusy, ProfileNotExtracted
from serving.extraction.extractor import Extractor
from serving.extraction.profile import Profile
from serving.gateway.adapters import Adapters
from serving.gateway.hints import Hints


class Profiles:
    """Reads profiles from the database and extracts them through the engine, so many at once."""

    def __init__(self, extractor: Extractor, adapters: Adapters, *, hints: Hints, at_once: int) -> None:
        self._extractor = extractor
        self._adapters = adapters
        self._hints = hints
        self._places = asyncio.Semaphore(at_once)
        self._running: Counter[str] = Counter()
        self._most_of_a_tenant = max(1, at_once - 1)  # one place is left to others

    async def latest(self, tenant: str, user: str) -> Profile | None:
        """Return the newest profile; None when there is none."""
        return await self._extractor.latest(tenant, user)

    async def require(self, tenant: str, user: str) -> Profile:
        """Return the newest profile.

        Raises:
            ProfileNotExtracted: when the user has a live adapter that was never asked.
            UnknownUser, NoAdapter: when there is nothing to ask.
        """
        profile = await self.latest(tenant, user)
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
            ExtractionBusy: when this process runs as many extractions as it may, or all but one are the tenant's.
            EngineCallError: when the engine refuses or fails; no profile is kept then.
        """
        manifest = await self._adapters.require_live(tenant, user)
        if self._places.locked() or self._running[tenant] >= self._most_of_a_tenant:
            raise ExtractionBusy
        self._hints.expect(manifest, kind="batch")  # it loads while the transcripts are read
        self._running[tenant] += 1
        try:
            async with self._places:
                return await self._extractor.extract(manifest)
        finally:
            self._running[tenant] -= 1
            self._running += Counter()  # which forgets tenants that have none
