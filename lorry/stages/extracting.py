"""Stage 6: a live adapter version → a profile, kept in the database and on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from lorry.context import Context
from lorry.home import Home
from registry.manifest import AdapterRef, Owner
from serving.extraction.corrections.shown import shown_profile
from serving.extraction.engine_client import EngineClient
from serving.extraction.engines import EngineName, Engines
from serving.extraction.extractor import Extractor
from serving.extraction.profile import Profile
from serving.extraction.render import write_profile
from serving.extraction.settings import ExtractionSettings

OnProgress = Callable[[int, int], None]


async def extract_user_profile(
    context: Context, *, user: str, force: bool = False, on_progress: OnProgress | None = None
) -> Profile:
    """Return the profile of the user's live version, extracting it unless that version's is there already.

    The profile is kept in the database, for the gateway, and under ``<home>/profiles``, for people.

    Raises:
        AdapterNotFound, AliasNotFound: the user has nothing live.
        EngineCallError: the engine refuses or fails; nothing is kept then.
        BankInvalid: the tenant's own bank cannot be used any more.
    """
    owner = Owner.named(tenant=context.settings.tenant, user=user)
    manifest = (await context.registry.resolve(AdapterRef(owner=owner))).manifest
    async with _engines(context) as engines:
        extractor = Extractor(context.database, engines, settings=ExtractionSettings())
        profile = await extractor.latest(owner.tenant, user)
        bank = await extractor.banks.bank_of(owner.tenant)
        wanted = (manifest.version_id, bank.name, bank.version)
        made_with = profile and (profile.adapter.version_id, profile.bank.name, profile.bank.version)
        if force or profile is None or made_with != wanted:
            profile = await extractor.extract(manifest, on_progress=on_progress)
    directory = profile_directory(context.home, tenant=owner.tenant, user=user)
    context.home.work_on(owner.tenant, user)
    await asyncio.to_thread(write_profile, profile, directory)
    return profile


def _engines(context: Context) -> AbstractAsyncContextManager[Engines]:
    def connect(url: str, name: EngineName) -> EngineClient:
        return EngineClient(url=url, token=context.plan.engine_token)

    return Engines.connected(context.plan.engine_url, of_bases=context.settings.base_engine_urls, connect=connect)


async def rewrite_user_profile(context: Context, *, user: str) -> None:
    """Write the profile's files in the home again, if they are there, as it is shown now."""
    directory = profile_directory(context.home, tenant=context.settings.tenant, user=user)
    if not directory.is_dir():
        return
    async with context.database.reading() as session:
        profile = await shown_profile(session, context.settings.tenant, user)
    if profile is not None:
        await asyncio.to_thread(write_profile, profile, directory)


def profile_directory(home: Home, *, tenant: str, user: str) -> Path:
    """Return the directory that holds the user's profile, if one was extracted."""
    return home.folder("profiles", tenant) / user
