"""Extraction with its stores: a user's transcripts in, a profile made, the profile kept."""

from __future__ import annotations

from kit.database import Database
from registry.manifest import Manifest
from serving.extraction.asking.asking import OnProgress
from serving.extraction.bank.bank import Bank
from serving.extraction.bank.shelf import BankShelf
from serving.extraction.corrections.correction import Correction
from serving.extraction.corrections.matching import forbidding
from serving.extraction.corrections.overlay import apply_corrections
from serving.extraction.corrections.repository import CorrectionRepository
from serving.extraction.corrections.shown import shown_difference, shown_profile
from serving.extraction.engines import Engines
from serving.extraction.extract import extract_profile
from serving.extraction.profile.difference import Difference, compare_profiles
from serving.extraction.profile.profile import Profile
from serving.extraction.repository import ProfileRepository
from serving.extraction.settings import ExtractionSettings
from serving.extraction.support.search import TurnSearch
from transcripts.store import TranscriptStore


class Extractor:
    """What both the gateway and the command line extract with."""

    def __init__(
        self, database: Database, engines: Engines, *, settings: ExtractionSettings, bank: Bank | None = None
    ) -> None:
        """Use a database and engines.

        Args:
            database: of transcripts, profiles, corrections and tenants' banks.
            engines: answer as adapters, each as those of its base, and as the base.
            settings: how much is asked and kept.
            bank: asked where a tenant has none of its own; None = the one that Lorry ships.
        """
        self._database = database
        self._engines = engines
        self._settings = settings
        self.banks = BankShelf(database, standard=bank)

    async def latest(self, tenant: str, user: str) -> Profile | None:
        """Return the newest profile as it is shown: corrected, without words that were deleted; None without one."""
        async with self._database.reading() as session:
            return await shown_profile(session, tenant, user)

    async def difference(self, tenant: str, user: str) -> Difference | None:
        """Return how the newest profile differs from the one before it; None when there is none."""
        async with self._database.reading() as session:
            return await shown_difference(session, tenant, user)

    async def extract(self, manifest: Manifest, *, on_progress: OnProgress | None = None) -> Profile:
        """Ask the version's adapter about its owner, keep the profile as the newest, and return it as it is shown.

        Raises:
            EngineCallError: when the engine refuses or fails; no profile is kept then.
            BankInvalid: when the tenant's own bank cannot be used any more.
            BaseNotServed: when the engine does not call its base as the settings say.
        """
        tenant, user = manifest.owner.tenant, manifest.owner.user
        bank = await self.banks.bank_of(tenant)
        async with self._database.reading() as session:
            most_bytes = self._settings.extraction_read_bytes
            transcripts = await TranscriptStore(session).recent(tenant, user, most_bytes=most_bytes)
            corrections = await CorrectionRepository(session, tenant=tenant, user=user).list()
        profile = await extract_profile(
            engine=self._engines.of(manifest),
            search=TurnSearch(self._database, tenant=tenant, user=user),
            transcripts=transcripts,
            manifest=manifest,
            bank=bank,
            settings=self._settings,
            is_forbidden=forbidding(corrections),
            on_progress=on_progress,
        )
        return await self._keep(tenant, profile)

    async def _keep(self, tenant: str, profile: Profile) -> Profile:
        """Keep a new profile with its difference from the one before; return it as it is shown."""
        user = profile.user
        async with self._database.transaction() as session:
            profiles, store = ProfileRepository(session), TranscriptStore(session)
            corrections = await CorrectionRepository(session, tenant=tenant, user=user).list()
            older = await profiles.latest(tenant, user)
            quoted = profile.transcript_ids() | (older.transcript_ids() if older is not None else frozenset())
            living = await store.present(tenant, user, quoted)
            # What was deleted or forbidden while the engine was asked is not even kept.
            forbidden = [each for each in corrections if each.kind == "forbid"]
            profile = apply_corrections(profile, forbidden, living=living)
            await profiles.add(tenant, profile, difference=_difference(older, profile, forbidden, living))
            shown = await shown_profile(session, tenant, user)
        return shown or profile


def _difference(
    older: Profile | None, newer: Profile, forbidden: list[Correction], living: frozenset[str]
) -> Difference:
    if older is None:
        return compare_profiles(None, newer)
    repeatable = apply_corrections(older, forbidden, living=living)
    forgotten = sum(1 for _ in older.statements()) - sum(1 for _ in repeatable.statements())
    return compare_profiles(repeatable, newer, forgotten=forgotten)
