"""How a profile differs from the one before: what came, what went, what is surer or less sure.

What stood in transcripts that have been deleted is counted and not repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from serving.extraction.profile.profile import Confidence, FactId, Profile, Statement

# Sampling moves a confidence by this much without anything having changed.
MIN_CHANGE = 0.05


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Change(_Frozen):
    """One statement that is in one of the two profiles only, or in both with another confidence."""

    id: FactId
    topic: str
    text: str
    before: Confidence | None = Field(description="confidence in the older profile; null: it was not there")
    after: Confidence | None = Field(description="confidence in the newer profile; null: it is not there any more")
    transcript_ids: tuple[str, ...] = Field(description="the transcripts it is quoted from")


class Difference(_Frozen):
    """The newer profile against the older one."""

    since: datetime | None = Field(description="when the older profile was made; null: there was none")
    added: tuple[Change, ...] = ()
    gone: tuple[Change, ...] = ()
    changed: tuple[Change, ...] = ()
    forgotten: int = Field(
        0, ge=0, description="statements that went with the transcripts they stood in, or are barred"
    )

    def without(self, is_barred: Callable[[Change], bool]) -> Difference:
        """Return it without what may not be repeated any more, which is counted."""
        kept = {
            name: tuple(change for change in getattr(self, name) if not is_barred(change))
            for name in ("added", "gone", "changed")
        }
        left_out = sum(len(getattr(self, name)) - len(changes) for name, changes in kept.items())
        return Difference(since=self.since, forgotten=self.forgotten + left_out, **kept)


def compare_profiles(older: Profile | None, newer: Profile, *, forgotten: int = 0) -> Difference:
    """Return what changed from `older` to `newer`, by fact ids, in the order of the profiles.

    Args:
        older: the profile before, without what may not be repeated; None when there was none.
        newer: the profile now.
        forgotten: how many statements of the older one may not be repeated.
    """
    before = _by_id(older) if older is not None else {}
    after = _by_id(newer)
    both = [key for key in after if key in before]
    moved = [key for key in both if abs(after[key][1].confidence - before[key][1].confidence) >= MIN_CHANGE]
    return Difference(
        since=older.generated_at if older is not None else None,
        added=tuple(_change(None, after[key]) for key in after if key not in before),
        gone=tuple(_change(before[key], None) for key in before if key not in after),
        changed=tuple(_change(before[key], after[key]) for key in moved),
        forgotten=forgotten,
    )


_Found = tuple[str, Statement]


def _by_id(profile: Profile) -> dict[str, _Found]:
    return {statement.id: (section.topic, statement) for section, statement in profile.statements()}


def _change(before: _Found | None, after: _Found | None) -> Change:
    newest = after or before
    if newest is None:
        raise ValueError("a change has a before or an after")
    topic, statement = newest
    quotes = [quote for found in (before, after) if found is not None for quote in found[1].support]
    return Change(
        id=statement.id,
        topic=topic,
        text=statement.text,
        before=before[1].confidence if before else None,
        after=after[1].confidence if after else None,
        transcript_ids=tuple(sorted({quote.transcript_id for quote in quotes})),
    )
