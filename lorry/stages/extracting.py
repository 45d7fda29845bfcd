"""Stage 6: a live adapter version → a profile, kept in the database and on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from lorry.context import Context
from lorry.home import Home
from registry.manifest import AdapterRef, Owner
from serving.extraction.bank import standard_bank
from serving.extraction.engine_client import EngineClient
from serving.extraction.extract import extract_profile
from serving.extraction.profile import Profile
from serving.extraction.render import write_profile
from serving.extraction.repository import ProfileRepository
from serving.extraction.settings import ExtractionSettings
from transcripts.repository import Passage
from transcripts.search import search_user_turns
from transcripts.store import TranscriptStore

OnProgress = Callable[[int, int], None]


async def extract_user_profile(
    context: Context, *, user: str, force: bool = False, on_progress: OnProgress | None = None
) -> Profile:
    """Return the profile of the user's live version, extracting it unless that version's is there already.

    The profile is kept in the database, for the gateway, and under ``<home>/profiles``, for people.

    Raises:
        AdapterNotFound, AliasNotFound: the user has nothing live.
        EngineCallError: the engine refuses or fails; nothing is kept then.
    """
    tenant = context.settings.tenant
    ref = AdapterRef(owner=Owner(tenant=tenant, user=user))
    manifest = (await context.registry.resolve(ref)).manifest
    bank, settings = standard_bank(), ExtractionSettings()
    async with context.database.transaction() as session:
        kept = await ProfileRepository(session).latest(tenant, user)
        transcripts = await TranscriptStore(session).list(tenant, user)
    wanted = (manifest.version_id, bank.version)
    if kept is not None and not force and (kept.adapter.version_id, kept.bank.version) == wanted:
        await _write(context.home, tenant=tenant, profile=kept)
        return kept

    async def search(query: str, *, limit: int) -> list[Passage]:
        async with context.database.transaction() as session:
            return await search_user_turns(session, tenant, user, query, limit)

    async with EngineClient(url=context.plan.engine_url, token=context.plan.engine_token) as engine:
        profile = await extract_profile(
            engine=engine,
            search=search,
            transcripts=transcripts,
            manifest=manifest,
            bank=bank,
            settings=settings,
            on_progress=on_progress,
        )
    async with context.database.transaction() as session:
        await ProfileRepository(session).add(tenant, profile)
    await _write(context.home, tenant=tenant, profile=profile)
    return profile


def profile_directory(home: Home, *, tenant: str, user: str) -> Path:
    """Return the directory that holds the user's profile, if one was extracted."""
    return home.folder("profiles", tenant) / user


async def _write(home: Home, *, tenant: str, profile: Profile) -> None:
    await asyncio.to_thread(write_profile, profile, profile_directory(home, tenant=tenant, user=profile.user))
