"""What is shown of a user: the newest profile as corrected, and how it differs from the one before."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from serving.extraction.corrections.correction import Correction
from serving.extraction.corrections.matching import Prohibitions, is_same
from serving.extraction.corrections.overlay import apply_corrections
from serving.extraction.corrections.repository import CorrectionRepository
from serving.extraction.profile.difference import Change, Difference
from serving.extraction.profile.profile import Profile
from serving.extraction.repository import ProfileRepository
from transcripts.store import TranscriptStore


async def shown_profile(session: AsyncSession, tenant: str, user: str) -> Profile | None:
    """Return the newest profile as people corrected it, from words that are still there; None without one.

    Raises:
        InvalidName: when `tenant` or `user` is no name.
    """
    profile = await ProfileRepository(session).latest(tenant, user)
    return None if profile is None else await as_shown(session, tenant, user, profile)


async def as_shown(session: AsyncSession, tenant: str, user: str, profile: Profile) -> Profile:
    """Return a profile of the user's, whenever it was made, as it is shown today.

    Raises:
        InvalidName: when `tenant` or `user` is no name.
    """
    corrections = await CorrectionRepository(session, tenant=tenant, user=user).list()
    quoted = profile.transcript_ids() | _quoted_by(corrections)
    living = await TranscriptStore(session).present(tenant, user, quoted)
    return apply_corrections(profile, corrections, living=living)


async def shown_difference(session: AsyncSession, tenant: str, user: str) -> Difference | None:
    """Return how the newest profile differs from the one before; what may not be repeated any more is only counted.

    Raises:
        InvalidName: when `tenant` or `user` is no name.
    """
    difference = await ProfileRepository(session).latest_difference(tenant, user)
    if difference is None:
        return None
    corrections = await CorrectionRepository(session, tenant=tenant, user=user).list()
    prohibitions = Prohibitions(corrections)
    changes = (*difference.added, *difference.gone, *difference.changed)
    ids = frozenset(id for change in changes for id in change.transcript_ids)
    living = await TranscriptStore(session).present(tenant, user, ids)

    def is_barred(change: Change) -> bool:
        return (
            prohibitions.forbid(change.text)
            or not living.intersection(change.transcript_ids)
            or any(each.kind == "edit" and is_same(each, change.text) for each in corrections)
        )

    return difference.without(is_barred)


def _quoted_by(corrections: Sequence[Correction]) -> frozenset[str]:
    statements = (each.statement for each in corrections if each.statement is not None)
    return frozenset(quote.transcript_id for statement in statements for quote in statement.support)
