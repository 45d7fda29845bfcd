"""Correcting profiles in a real PostgreSQL, with transcripts that come and go."""

from __future__ import annotations

import asyncio

import pytest

from kit.database import Database
from kit.errors import InvalidName
from serving.errors import CorrectionInvalid, CorrectionNotFound, FactNotFound
from serving.extraction.corrections.repository import CorrectionRepository
from serving.extraction.corrections.service import Corrections
from serving.extraction.corrections.shown import shown_difference, shown_profile
from serving.extraction.profile import Profile, compare_profiles
from serving.extraction.profile.fact_id import fact_id
from serving.extraction.repository import ProfileRepository
from tests.support.extraction import said
from tests.support.profiles import a_statement, profile_of
from transcripts.store import TranscriptStore

TEA, JAZZ = "I love green tea", "I love jazz"


async def keep(database: Database, *texts: str, user: str = "ann") -> Profile:
    """Keep a transcript of each text and a profile that states them all."""
    transcripts = [said(text) for text in texts]
    statements = [a_statement(t.turns[0].text, (t.turns[0].text, t.id)) for t in transcripts]
    profile = profile_of(*statements, user=user)
    async with database.transaction() as session:
        if transcripts:
            await TranscriptStore(session).add("t", user, transcripts)
        older = await ProfileRepository(session).latest("t", user)
        await ProfileRepository(session).add("t", profile, difference=compare_profiles(older, profile))
    return profile


async def stated(database: Database, user: str = "ann") -> dict[str, str | None]:
    async with database.reading() as session:
        profile = await shown_profile(session, "t", user)
    assert profile is not None
    return {each.text: each.correction.kind if each.correction else None for _, each in profile.statements()}


@pytest.fixture
def corrections(database: Database) -> Corrections:
    return Corrections(database, tenant="t")


async def test_an_edit_holds_after_the_next_extraction_and_is_marked(
    database: Database, corrections: Corrections
) -> None:
    await keep(database, TEA, JAZZ)
    done = await corrections.edit("ann", TEA, text="Loves white tea", by="bob")
    assert (done.kind, done.made_by, done.text) == ("edit", "bob", TEA)
    for texts in ((TEA, JAZZ), (JAZZ,)):
        await keep(database, *texts)
        assert await stated(database) == {"Loves white tea": "edited", JAZZ: None}


async def test_a_fact_is_edited_again_by_its_id_and_the_first_edit_is_withdrawn(
    database: Database, corrections: Corrections
) -> None:
    await keep(database, TEA)
    await corrections.edit("ann", fact_id(TEA), text="Loves white tea", by="bob")
    await corrections.edit("ann", fact_id(TEA), text="Loves black tea", by="eve")
    assert await stated(database) == {"Loves black tea": "edited"}
    first, second = await corrections.list("ann", withdrawn=True)
    assert (first.withdrawn_by, second.withdrawn_by, second.text) == ("eve", None, TEA)
    assert first.withdrawn_at is not None
    assert [each.id for each in await corrections.list("ann")] == [second.id]


async def test_a_forbidden_fact_stays_away_whatever_an_extraction_says(
    database: Database, corrections: Corrections
) -> None:
    await keep(database, TEA, JAZZ)
    await corrections.forbid("ann", fact_id(TEA), by="bob")
    assert await stated(database) == {JAZZ: None}
    await keep(database, "I really love the green tea", "I'm a fan of green tea", JAZZ)
    assert await stated(database) == {JAZZ: None}


async def test_what_is_not_stated_may_be_forbidden_beforehand(database: Database, corrections: Corrections) -> None:
    await corrections.forbid("ann", "I have depression", by="bob")
    await keep(database, "my depression is back", JAZZ)
    assert await stated(database) == {JAZZ: None}


async def test_forbidding_an_edited_fact_forbids_its_old_words_too(
    database: Database, corrections: Corrections
) -> None:
    await keep(database, TEA, JAZZ)
    await corrections.edit("ann", TEA, text="Drinks matcha", by="bob")
    await corrections.forbid("ann", "Drinks matcha", by="bob")
    assert await stated(database) == {JAZZ: None}


async def test_what_is_withdrawn_is_undone_and_stays_in_the_list(database: Database, corrections: Corrections) -> None:
    await keep(database, TEA)
    done = await corrections.forbid("ann", TEA, by="bob")
    await corrections.withdraw("ann", done.id, by="eve")
    assert await stated(database) == {TEA: None}
    assert [(each.made_by, each.withdrawn_by) for each in await corrections.list("ann", withdrawn=True)] == [
        ("bob", "eve")
    ]
    with pytest.raises(CorrectionNotFound):
        await corrections.withdraw("ann", done.id, by="eve")


async def test_a_confirmed_fact_stays_until_its_transcript_is_deleted(
    database: Database, corrections: Corrections
) -> None:
    await keep(database, TEA)
    await corrections.confirm("ann", TEA, by="bob")
    await keep(database)
    assert await stated(database) == {TEA: "confirmed"}
    async with database.transaction() as session:
        await TranscriptStore(session).delete("t", "ann", said(TEA).id)
    assert await stated(database) == {}


async def test_deleted_words_come_back_neither_in_a_profile_nor_in_its_difference(database: Database) -> None:
    await keep(database, TEA, JAZZ)
    await keep(database, JAZZ)
    async with database.reading() as session:
        difference = await shown_difference(session, "t", "ann")
    assert difference is not None
    assert [each.text for each in difference.gone] == [TEA]
    async with database.transaction() as session:
        await TranscriptStore(session).delete("t", "ann", said(TEA).id)
    async with database.reading() as session:
        profile, difference = await shown_profile(session, "t", "ann"), await shown_difference(session, "t", "ann")
    assert profile is not None
    assert difference is not None
    assert "tea" not in profile.to_bytes().decode() + difference.model_dump_json()
    assert difference.forgotten == 1


async def test_a_forbidden_fact_is_not_in_the_difference(database: Database, corrections: Corrections) -> None:
    await keep(database, TEA)
    await corrections.forbid("ann", TEA, by="bob")
    async with database.reading() as session:
        difference = await shown_difference(session, "t", "ann")
    assert difference is not None
    assert (difference.added, difference.forgotten) == ((), 1)


async def test_corrections_of_others_are_not_seen(database: Database, corrections: Corrections) -> None:
    await keep(database, TEA)
    await keep(database, TEA, user="bob")
    done = await corrections.forbid("ann", TEA, by="x")
    assert await stated(database, "bob") == {TEA: None}
    assert await Corrections(database, tenant="other").list("ann") == []
    for elsewhere in (Corrections(database, tenant="other"), corrections):
        with pytest.raises(CorrectionNotFound):
            await elsewhere.withdraw("bob", done.id, by="x")


@pytest.mark.parametrize("fact", ["I love skydiving", "f000000000000", "", "f" * 500])
async def test_what_is_not_stated_can_be_neither_edited_nor_confirmed(
    database: Database, corrections: Corrections, fact: str
) -> None:
    await keep(database, TEA)
    with pytest.raises(FactNotFound):
        await corrections.edit("ann", fact, text="x", by="bob")
    with pytest.raises(FactNotFound):
        await corrections.confirm("ann", fact, by="bob")
    assert await corrections.list("ann") == []


@pytest.mark.parametrize("text", ["", "   ", "x" * 401, "a\nb", "a\0b", "\ud800", "a\u2028b", "\x1b[31m"])
async def test_a_text_that_is_no_line_is_refused_and_names_its_field(
    database: Database, corrections: Corrections, text: str
) -> None:
    await keep(database, TEA)
    with pytest.raises(CorrectionInvalid) as refused:
        await corrections.edit("ann", TEA, text=text, by="bob")
    assert refused.value.field == "text"
    with pytest.raises(CorrectionInvalid) as refused:
        await corrections.edit("ann", TEA, text="Loves tea", by=text)
    assert refused.value.field == "by"
    with pytest.raises(CorrectionInvalid) as refused:
        await corrections.forbid("ann", text, by="bob")
    assert refused.value.field == "fact"
    assert await stated(database) == {TEA: None}


async def test_an_edit_to_what_is_forbidden_and_a_prohibition_of_nothing_are_refused(
    database: Database, corrections: Corrections
) -> None:
    await keep(database, TEA)
    await corrections.forbid("ann", "I have depression", by="bob")
    with pytest.raises(CorrectionInvalid, match="forbids that"):
        await corrections.edit("ann", TEA, text="Has a depression", by="bob")
    with pytest.raises(CorrectionInvalid, match="no word in it"):
        await corrections.forbid("ann", "I am not", by="bob")
    await corrections.edit("ann", TEA, text="Loves matcha", by="bob")
    with pytest.raises(CorrectionInvalid, match="nothing to confirm"):
        await corrections.confirm("ann", "Loves matcha", by="bob")


async def test_many_who_correct_one_fact_at_once_leave_one_correction_in_force(
    database: Database, corrections: Corrections
) -> None:
    await keep(database, TEA)
    edits = [corrections.edit("ann", fact_id(TEA), text=f"Loves tea {n}", by=f"p{n}") for n in range(8)]
    await asyncio.gather(*edits)
    (in_force,) = await corrections.list("ann")
    assert len(await corrections.list("ann", withdrawn=True)) == 8
    assert in_force.statement is not None
    assert await stated(database) == {in_force.statement.text: "edited"}


async def test_erasing_a_user_deletes_what_was_corrected_of_them_alone(
    database: Database, corrections: Corrections
) -> None:
    for user in ("ann", "bob"):
        await keep(database, TEA, user=user)
        await corrections.forbid(user, TEA, by="x")
    async with database.transaction() as session:
        assert await CorrectionRepository(session, tenant="t", user="ann").erase() == 1
    assert await corrections.list("ann", withdrawn=True) == []
    assert len(await corrections.list("bob")) == 1


async def test_what_is_no_name_is_refused(corrections: Corrections) -> None:
    with pytest.raises(InvalidName):
        await corrections.list("a/b")


async def test_nobody_lays_more_over_a_profile_than_can_be_read(database: Database) -> None:
    await keep(database, TEA)
    corrections = Corrections(database, tenant="t")
    async with database.transaction() as session:
        repository = CorrectionRepository(session, tenant="t", user="ann")
        for number in range(500):
            await repository.add(
                kind="forbid", fact_id=fact_id(f"I own hat{number}"), text=f"I own hat{number}", topic=None,
                statement=None, by="eve",
            )  # fmt: skip
    for attempt in (
        corrections.forbid("ann", "I own a yacht", by="eve"),
        corrections.confirm("ann", TEA, by="eve"),
        corrections.edit("ann", TEA, text="Drinks matcha", by="eve"),
    ):
        with pytest.raises(CorrectionInvalid, match="withdraw"):
            await attempt
    first = (await corrections.list("ann"))[0]
    await corrections.withdraw("ann", first.id, by="bob")
    await corrections.forbid("ann", "I own a yacht", by="bob")
