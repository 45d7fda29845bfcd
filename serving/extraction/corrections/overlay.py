"""A profile as it is shown: what was extracted, as people have corrected it, from words that are still there.

Laws: applying twice changes nothing more; nothing quoted is of a transcript that is gone; nothing that is forbidden
is stated or quoted; every statement that a person touched is marked with who did it and when.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from serving.extraction.corrections.correction import Correction
from serving.extraction.corrections.matching import Prohibitions, is_same
from serving.extraction.profile.profile import Marked, Profile, Quote, Statement, TopicSection


def apply_corrections(profile: Profile, corrections: Sequence[Correction], *, living: Collection[str]) -> Profile:
    """Return the profile as it is shown.

    Args:
        profile: as it was extracted.
        corrections: of this user; those that are not in force are passed over.
        living: ids of the user's transcripts that are still there. What was quoted from others is gone, and a statement
            with no other support with it. A confirmation lapses with the words that were confirmed; an edit, which is
            a person's own word, stays.
    """
    in_force = [each for each in corrections if each.is_in_force]
    prohibitions = Prohibitions(in_force)
    kept = {section.topic: list(_living(section, prohibitions, living)) for section in profile.topics}
    titles = {section.topic: section.title for section in profile.topics}
    for correction in in_force:
        if correction.statement is None or correction.topic is None:
            continue
        restored = _restored(correction, prohibitions, living)
        found = _take(kept, correction)
        if correction.kind == "confirm":
            restored = _confirmed(found, correction) if found is not None else restored
        if restored is None:
            continue
        titles.setdefault(correction.topic, correction.topic.replace("_", " ").capitalize())
        kept.setdefault(correction.topic, []).append(restored)
    sections = tuple(
        TopicSection.of(topic, titles[topic], tuple(sorted(found, key=_rank))) for topic, found in kept.items()
    )
    return profile.model_copy(update={"topics": sections})


def _living(section: TopicSection, prohibitions: Prohibitions, living: Collection[str]) -> Sequence[Statement]:
    """Return the section's statements that may still be made, each with the quotes that may."""
    found = []
    for statement in section.statements:
        if statement.wording == "person" or prohibitions.forbid(statement.text):
            continue  # what a person wrote comes from the correction itself
        if (narrowed := _narrowed(statement, prohibitions, living)) is not None:
            found.append(narrowed)
    return found


def _narrowed(statement: Statement, prohibitions: Prohibitions, living: Collection[str]) -> Statement | None:
    def may_show(quote: Quote) -> bool:
        return quote.transcript_id in living and not prohibitions.forbid(quote.quote)

    support = tuple(filter(may_show, statement.support))
    if not support:
        return None
    contradictions = tuple(filter(may_show, statement.contradictions))
    update: dict[str, object] = {"support": support, "contradictions": contradictions, "correction": None}
    if support != statement.support:
        times = sorted(quote.time for quote in support if quote.time is not None)
        update |= {"first_seen": times[0] if times else None, "last_seen": times[-1] if times else None}
    return statement.model_copy(update=update)


def _restored(correction: Correction, prohibitions: Prohibitions, living: Collection[str]) -> Statement | None:
    """Return what a correction puts into the profile by itself; None when that may not be shown any more."""
    statement = correction.statement
    if statement is None or prohibitions.forbid(statement.text):
        return None
    if correction.kind == "edit":
        return statement.model_copy(update={"correction": _mark(correction)})
    narrowed = _narrowed(statement, prohibitions, living)
    return _confirmed(narrowed, correction) if narrowed is not None else None


def _take(kept: dict[str, list[Statement]], correction: Correction) -> Statement | None:
    """Remove the statements that the correction is about, and return the surest of them."""
    taken: list[Statement] = []
    for topic, statements in kept.items():
        mine = [each for each in statements if each.correction is None and is_same(correction, each.text)]
        kept[topic] = [each for each in statements if each not in mine]
        taken += mine
    return max(taken, key=lambda each: each.confidence, default=None)


def _confirmed(statement: Statement, correction: Correction) -> Statement:
    return statement.model_copy(update={"confidence": 1.0, "correction": _mark(correction)})


def _mark(correction: Correction) -> Marked:
    return Marked(
        correction_id=correction.id,
        kind="edited" if correction.kind == "edit" else "confirmed",
        by=correction.made_by,
        at=correction.made_at,
    )


def _rank(statement: Statement) -> tuple[float, str]:
    return -statement.confidence, statement.text.casefold()
