"""What people did to facts, laid over what was extracted: no database."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from serving.extraction.corrections.correction import Correction, Kind
from serving.extraction.corrections.matching import Prohibitions
from serving.extraction.corrections.overlay import apply_corrections
from serving.extraction.profile import Marked, Profile, Statement, compare_profiles
from serving.extraction.profile.fact_id import fact_id
from tests.support.profiles import a_statement as statement
from tests.support.profiles import profile_of

LIVING = frozenset({"t1", "t2"})
WHEN = datetime(2026, 5, 6, tzinfo=UTC)


def correction(kind: Kind, text: str, *, to: str = "", number: int = 1, withdrawn: bool = False) -> Correction:
    mark = Marked(correction_id=1, kind="edited", by="bob", at=WHEN)
    new = Statement(id=fact_id(text), text=to or "x", wording="person", confidence=1, correction=mark)
    return Correction(
        id=number,
        kind=kind,
        fact_id=fact_id(text),
        text=text,
        topic=None if kind == "forbid" else "interests",
        statement={"edit": new, "confirm": statement(text), "forbid": None}[kind],
        made_by="bob",
        made_at=WHEN,
        withdrawn_by="eve" if withdrawn else None,
        withdrawn_at=WHEN if withdrawn else None,
    )


def shown(profile: Profile) -> list[str]:
    return [each.text for _, each in profile.statements()]


def test_an_edit_takes_the_place_of_its_fact_and_says_who_and_when() -> None:
    profile = profile_of(statement("I love green tea"), statement("I love jazz"))
    found = apply_corrections(
        profile, [correction("edit", "I love green tea", to="She loves white tea")], living=LIVING
    )
    assert set(shown(found)) == {"She loves white tea", "I love jazz"}
    (edited,) = [each for _, each in found.statements() if each.correction is not None]
    assert edited.correction == Marked(correction_id=1, kind="edited", by="bob", at=WHEN)
    assert (edited.wording, edited.id) == ("person", fact_id("I love green tea"))


def test_an_edit_survives_an_extraction_that_finds_the_old_words_differently_or_not_at_all() -> None:
    edit = correction("edit", "I love green tea", to="She loves white tea")
    for found in ([statement("i really love the green tea")], [statement("I love drinking green tea")], []):
        assert shown(apply_corrections(profile_of(*found), [edit], living=LIVING)) == ["She loves white tea"]


def test_a_confirmed_fact_stays_when_an_extraction_does_not_find_it() -> None:
    confirmed = correction("confirm", "I love green tea")
    for found in (profile_of(statement("I love green tea")), profile_of()):
        (each,) = [each for _, each in apply_corrections(found, [confirmed], living=LIVING).statements()]
        assert (each.text, each.confidence) == ("I love green tea", 1.0)
        assert each.correction is not None
        assert (each.correction.kind, each.correction.by) == ("confirmed", "bob")


def test_a_confirmation_lapses_with_the_words_that_were_confirmed_and_an_edit_does_not() -> None:
    confirmed, edited = correction("confirm", "I love green tea"), correction("edit", "I love jazz", to="No jazz")
    assert shown(apply_corrections(profile_of(), [confirmed, edited], living=frozenset())) == ["No jazz"]


def test_a_withdrawn_correction_does_nothing() -> None:
    profile = profile_of(statement("I love green tea"))
    gone = [correction(kind, "I love green tea", to="x", withdrawn=True) for kind in ("edit", "confirm", "forbid")]
    assert apply_corrections(profile, gone, living=LIVING) == profile


def test_a_topic_says_not_stated_when_all_in_it_is_forbidden_and_a_lost_topic_comes_back_with_its_edit() -> None:
    profile = profile_of(statement("I love green tea"))
    found = apply_corrections(profile, [correction("forbid", "I love green tea")], living=LIVING)
    assert all(section.not_stated for section in found.topics)
    other = profile_of(topic="habits")
    found = apply_corrections(other, [correction("edit", "I love jazz", to="Jazz, always")], living=LIVING)
    assert [section.topic for section in found.topics if not section.not_stated] == ["interests"]


@pytest.mark.parametrize(
    "paraphrase",
    [
        "I have depression",
        "I've got depression",
        "I suffer from depression",
        "my depression is bad in winter",
        "I was diagnosed with depression in May",
        "Depression runs in my family and I have it",
        "I am depressed",
        "I never talk about my depression",
        "We fight depressions",
        "I love running because it helps my depression",
    ],
)
def test_what_is_forbidden_does_not_come_back_in_other_words(paraphrase: str) -> None:
    profile = profile_of(statement(paraphrase), statement("I love jazz"))
    found = apply_corrections(profile, [correction("forbid", "I have depression")], living=LIVING)
    assert shown(found) == ["I love jazz"]


@pytest.mark.parametrize(
    ("forbidden", "paraphrase"),
    [
        ("I love green tea", "I'm a fan of green tea"),
        ("I love green tea", "my favorite drink is green tea"),
        ("I live in Oslo", "I am from Oslo"),
        ("I live in Oslo", "I work in Oslo and sleep there"),
        ("I smoke", "I smoked yesterday"),
        ("I smoke", "I have been smoking for years"),
        ("my wife is called Eva", "Eva is my wife"),
        ("I am pregnant", "my pregnancy is going well, I'm so pregnant"),
        ("depression", "I have depression"),
    ],
)
def test_another_verb_or_order_is_the_same_fact(forbidden: str, paraphrase: str) -> None:
    assert Prohibitions([correction("forbid", forbidden)]).forbid(paraphrase)


@pytest.mark.parametrize(
    ("forbidden", "other"),
    [
        ("I love green tea", "I love tea"),
        ("I love green tea", "I hate green tea"),
        ("I hate football", "I like football"),
        ("I live in Oslo", "I live in Bergen"),
        ("I have two cats", "I have two dogs"),
    ],
)
def test_another_fact_is_not_forbidden_with_it(forbidden: str, other: str) -> None:
    assert not Prohibitions([correction("forbid", forbidden)]).forbid(other)


def test_what_is_forbidden_is_not_quoted_for_something_else_either() -> None:
    running = statement("I love running", ("I love running because of my depression", "t1"), ("I love running", "t2"))
    only = statement("I love rowing", ("I love rowing, it helps with depression", "t1"))
    found = apply_corrections(profile_of(running, only), [correction("forbid", "I have depression")], living=LIVING)
    assert "depression" not in found.to_bytes().decode()
    assert shown(found) == ["I love running"]


def test_words_of_deleted_transcripts_are_gone_and_so_is_what_only_they_said() -> None:
    tea = statement("I love tea", ("I love tea", "gone"), ("I really love tea", "t1"))
    jazz = statement("I love jazz", ("I love jazz", "gone"))
    found = apply_corrections(profile_of(tea, jazz), [], living=LIVING)
    assert shown(found) == ["I love tea"]
    ((_, kept),) = found.statements()
    assert [quote.quote for quote in kept.support] == ["I really love tea"]
    assert kept.first_seen == kept.last_seen == datetime(2021, 1, 1, tzinfo=UTC)


def test_applying_twice_changes_nothing_more() -> None:
    profile = profile_of(statement("I love green tea"), statement("I love jazz"), statement("I love chess"))
    corrections = [
        correction("edit", "I love green tea", to="White tea", number=1),
        correction("confirm", "I love jazz", number=2),
        correction("forbid", "I love chess", number=3),
    ]
    once = apply_corrections(profile, corrections, living=LIVING)
    assert apply_corrections(once, corrections, living=LIVING) == once
    assert set(shown(once)) == {"White tea", "I love jazz"}


def test_a_difference_names_what_came_what_went_and_what_is_surer() -> None:
    older = profile_of(statement("I love tea"), statement("I love jazz"), statement("I love chess", confidence=0.7))
    newer = profile_of(
        statement("I really love tea", confidence=0.72), statement("I love chess", confidence=0.9), statement("I row")
    )
    found = compare_profiles(older, newer, forgotten=2)
    assert [each.text for each in found.added] == ["I row"]
    assert [each.text for each in found.gone] == ["I love jazz"]
    assert [(each.text, each.before, each.after) for each in found.changed] == [("I love chess", 0.7, 0.9)]
    assert (found.since, found.forgotten) == (older.generated_at, 2)


def test_the_first_profile_has_everything_added() -> None:
    found = compare_profiles(None, profile_of(statement("I love tea")))
    assert (found.since, [each.text for each in found.added], found.gone) == (None, ["I love tea"], ())


def test_a_difference_counts_what_may_not_be_repeated() -> None:
    found = compare_profiles(profile_of(statement("I love tea")), profile_of(statement("I love jazz")))
    barred = found.without(lambda change: "tea" in change.text)
    assert ([each.text for each in barred.added], barred.gone, barred.forgotten) == (["I love jazz"], (), 1)
    assert "tea" not in barred.model_dump_json()
