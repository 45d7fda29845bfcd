"""One user in hand: the live version is looked up and asked, and what it said is sealed and put away.

Each part is kept when it is done: the profile by extraction, in the database; its sealed copy in the object store. When
a worker dies between them, the next one finds the profile and asks nobody again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import Any

from kit.database import Database
from registry.client import RegistryClient
from registry.manifest import AdapterRef, Manifest, Owner
from serving.extraction.bank import Bank
from serving.extraction.engines import Engines
from serving.extraction.extractor import Extractor
from serving.extraction.profile import Profile
from serving.extraction.settings import ExtractionSettings
from serving.jobs.metrics import ExtractionMetrics
from serving.jobs.users.repository import Taken
from serving.jobs.vault import Place, Vault


class UserExtraction:
    """Does the work of one user, for any number at once."""

    def __init__(
        self,
        settings: ExtractionSettings,
        *,
        database: Database,
        registry: RegistryClient,
        engines: Engines,
        vault: Vault,
        bank: Bank,
        metrics: ExtractionMetrics,
    ) -> None:
        self._registry = registry
        self._extractor = Extractor(database, engines, bank=bank, settings=settings)
        self._vault = vault
        self._metrics = metrics

    async def resolve(self, taken: Taken) -> Manifest:
        """Return the user's version that is live now.

        Raises:
            LorryError: when there is none, or it cannot be known now.
        """
        owner = Owner(tenant=taken.tenant, user=taken.hand.user_id)
        with self._metrics.stage("resolve"):
            return (await self._registry.resolve(AdapterRef(owner=owner))).manifest

    async def run(self, taken: Taken, manifest: Manifest) -> dict[str, Any]:
        """Extract the user's profile with this version, and put it away.

        Returns:
            What is written down of the user: the version that answered.

        Raises:
            LorryError: whatever kept it from being done.
        """
        profile = await self._made_before(taken, manifest)
        if profile is None:
            with self._metrics.stage("ask"):
                profile = await self._extractor.extract(manifest)
        with self._metrics.stage("keep"):
            place = place_of(taken)
            await _to_its_end(
                self._vault.put(place, profile.model_dump_json().encode(), version_id=manifest.version_id)
            )
        return {"version_id": manifest.version_id, "version": manifest.version, "error": None}

    async def _made_before(self, taken: Taken, manifest: Manifest) -> Profile | None:
        """Return the profile that an earlier hand of this batch has made, if it came so far."""
        if taken.hand.run == 1:
            return None
        profile = await self._extractor.latest(taken.tenant, taken.hand.user_id)
        bank = await self._extractor.banks.bank_of(taken.tenant)
        if profile is None or (profile.bank.name, profile.bank.version) != (bank.name, bank.version):
            return None
        is_ours = profile.generated_at >= _whole_second(taken.submitted_at)
        return profile if is_ours and profile.adapter.version_id == manifest.version_id else None


def place_of(taken: Taken) -> Place:
    """Return where what this hand makes is put."""
    hand = taken.hand
    return Place(tenant=taken.tenant, user=hand.user_id, batch_id=hand.batch_id, run=hand.run)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do work that goes on in a thread when it is cancelled: nothing is put away once a hand has let go."""
    task, cancelled = asyncio.create_task(work), False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.exception()  # nobody hears of it
        raise asyncio.CancelledError
    task.result()


def _whole_second(moment: datetime) -> datetime:
    """Return a moment as profiles write it."""
    return moment.replace(microsecond=0)
