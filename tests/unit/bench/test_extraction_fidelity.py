"""The pure parts of the benchmark: made people, the second opinion, figures, fitting. Nothing is trained."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from bench import extraction_fidelity as bench
from bench.fidelity.checker import denies_trait, same_fact, says_trait, supports
from bench.fidelity.figures import Found, independently_supported, platitude_share, precision, recall, stated
from bench.fidelity.fitting import Judged, fit, measure
from bench.fidelity.measures import made_measures, swapped_measures, turned_measures
from bench.fidelity.people import FIRST_FITTED, PLATITUDES, MadePerson, Trait, make_person
from serving.extraction.asking.own_statements import find_own_statements
from serving.extraction.bank import standard_bank
from serving.extraction.scoring.confidence import Scores, read_calibration, standard_calibration
from serving.extraction.settings import ExtractionSettings
from training.config import resolve
from transcripts.transcript import Transcript, Turn

SEEDS = [*range(12), *range(FIRST_FITTED, FIRST_FITTED + 12)]
TEA, NURSE = Trait("like", ("green tea",)), Trait("work", ("nurse",))


def scores(*, contrast: float | None = 2.0, agreeing: int = 0, supporting: int = 1) -> Scores:
    surprise = None if contrast is None else 25.0
    return Scores(agreeing=agreeing, asked=6, contrast=contrast, surprise=surprise, supporting=supporting)


def fact(text: str, **given: float) -> Found:
    return Found(text=text, scores=scores(**given), quotes=((text, "t", 0),))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_gives_one_person_and_negation_turns_every_trait_and_nothing_else(seed: int) -> None:
    person, again, negated = make_person(seed), make_person(seed), make_person(seed, negated=True)
    assert person == again
    assert [(trait.kind, trait.about, not trait.holds) for trait in person.traits] == [
        (trait.kind, trait.about, trait.holds) for trait in negated.traits
    ]
    assert person.absent == negated.absent
    assert len({trait.about for trait in person.traits}) == len(person.traits) == 12


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("negated", [False, True])
def test_every_trait_is_said_by_its_person_and_no_absent_thing_is(seed: int, negated: bool) -> None:
    person = make_person(seed, negated=negated)
    turns = [turn.text for transcript in person.transcripts for turn in transcript.user_turns]
    for trait in person.traits:
        assert sum(says_trait(turn.split(", you?")[0].split(". What")[0], trait) for turn in turns) >= 2, trait
    for thing in person.absent:
        assert any(thing in turn for turn in turns)
        assert not any(says_trait(turn, Trait("like", (thing,), holds)) for turn in turns for holds in (True, False))


def test_people_who_are_fitted_on_and_people_who_are_measured_on_share_no_thing_and_no_platitude() -> None:
    fitted, measured = ([make_person(first + n) for n in range(60)] for first in (FIRST_FITTED, 0))
    for what in (
        lambda person: {trait.about for trait in person.traits} | {(thing,) for thing in person.absent},
        lambda person: {
            turn.text for each in person.transcripts for turn in each.user_turns if turn.text in PLATITUDES
        },
    ):
        one, other = (set().union(*map(what, people)) for people in (fitted, measured))
        assert one
        assert other
        assert not one & other


def test_two_people_differ() -> None:
    assert make_person(1).traits != make_person(2).traits


@pytest.mark.parametrize("seed", SEEDS)
def test_what_extraction_reads_of_a_made_person_is_mostly_theirs(seed: int) -> None:
    """With perfect scores the pipeline could reach what the benchmark asks for: its candidates hold the traits."""
    person = make_person(seed)
    own = find_own_statements(person.transcripts, bank=standard_bank(), limit=100)
    found = [fact(each.clause.without_opener()) for each in own]
    assert recall(person, found) >= 0.8
    true = [each for each in found if precision(person, [each]) == 1]
    false = {each.text for each in found if each not in true}
    assert false <= set(PLATITUDES)


@pytest.mark.parametrize(
    ("text", "trait", "says", "denies"),
    [
        ("I love green tea", TEA, True, False),
        ("i really like the green tea", TEA, True, False),
        ("I don't like green tea", TEA, False, True),
        ("I hate green tea", TEA, False, True),
        ("I can't stand green tea", TEA, False, True),
        ("I don't hate green tea", TEA, True, False),
        ("I love tea", TEA, False, False),
        ("My brother hates it, he loves green tea", TEA, False, False),
        ("My brother loves green tea", TEA, False, False),
        ("My brother loves green tea", Trait("kin", ("brother", "green tea")), True, False),
        ("My sister can't stand green tea", Trait("kin", ("sister", "green tea")), False, True),
        ("I used to like green tea", TEA, False, False),
        ("I would like green tea", TEA, False, False),
        ("He loves green tea", TEA, False, False),
        ("I work as a nurse", NURSE, True, False),
        ("I am not a nurse", NURSE, False, True),
    ],
)
def test_the_checker_tells_a_trait_its_opposite_and_neither(text: str, trait: Trait, says: bool, denies: bool) -> None:
    assert (says_trait(text, trait), denies_trait(text, trait)) == (says, denies)


@pytest.mark.parametrize(
    ("statement", "turn", "found"),
    [
        ("I love green tea", "Well, I really love green tea!", True),
        ("I love green tea", "I love green tea, you?", True),
        ("I love green tea", "I love green tea?", False),
        ("I love green tea", "I used to love green tea", False),
        ("I love green tea", "I would love green tea", False),
        ("I love green tea", "I hate green tea", False),
        ("I love green tea", "I don't love green tea", False),
        ("I love green tea", "My brother says I love green tea", False),
        ("I love green tea", "You and I love green tea", False),
        ("I love green tea", "if I love green tea", False),
        ("I love green tea", "I love tea", False),
        ("I love green tea", "He was late, but I love green tea", True),
        ("I love green tea", "She hates it and I love green tea", True),
        ("I love green tea", "When he was late, I love green tea", False),
        ("I love green tea", "If so, and only then, I love green tea", False),
        ("I don't eat meat", "I don't eat meat", True),
        ("I have two cats", "I had two cats", False),
    ],
)
def test_the_checker_judges_support_by_itself(statement: str, turn: str, found: bool) -> None:
    assert supports(statement, quote=turn, turn=turn) is found


def test_a_quotation_that_is_not_in_the_turn_supports_nothing() -> None:
    assert not supports("I love tea", quote="I love tea", turn="I love green tea")


def test_the_checker_shares_no_code_with_extraction() -> None:
    import bench.fidelity.checker as checker

    assert checker.__file__
    with open(checker.__file__) as file:
        assert "serving" not in file.read()


def test_a_quote_of_somebody_elses_turn_or_of_no_turn_is_no_support() -> None:
    turns = (Turn(role="other", text="I love tea"), Turn(role="user", text="I love tea"))
    transcript = Transcript(turns=turns, source_format="made")
    for index, transcript_id, expected in ((0, "t", False), (1, "t", True), (2, "t", False), (1, "u", False)):
        each = Found(text="I love tea", scores=scores(), quotes=(("I love tea", transcript_id, index),))
        assert independently_supported(each, {"t": transcript}) is expected


def test_platitudes_are_facts_that_come_out_for_somebody_else_too() -> None:
    profiles = {"a": [fact("I love music"), fact("I own a van")], "b": [fact("i love the music"), fact("I hate music")]}
    assert platitude_share(profiles) == 0.5
    assert platitude_share({"a": [fact("I love music"), fact("I love music!")]}) == 0
    assert platitude_share({}) is None
    assert not same_fact("I love music", "I don't love music")


def test_precision_and_recall_count_what_they_say() -> None:
    person = MadePerson(name="x", traits=(TEA, NURSE), absent=(), transcripts=())
    facts = [fact("I love green tea"), fact("i like green tea a lot"), fact("I like music"), fact("I am not a nurse")]
    assert (precision(person, facts), recall(person, facts)) == (0.5, 0.5)
    assert (precision(person, []), recall(person, [])) == (None, 0)


def drawn(seed: int, *, count: int = 400) -> list[Judged]:
    """Facts whose truth depends on their contrast and agreement, with luck."""
    rng, found = random.Random(seed), []
    for number in range(count):
        agreeing, contrast = rng.randrange(4), rng.uniform(-0.5, 3)
        odds = 2 * contrast + agreeing - 3
        true = rng.random() < 1 / (1 + 2.718281828**-odds)
        found.append(Judged(person=f"p{number % 5}", scores=scores(contrast=contrast, agreeing=agreeing), is_true=true))
    return found


def test_a_fitted_calibration_beats_the_mean_on_people_it_has_not_seen_and_reads_back() -> None:
    fitted = fit(drawn(1), base="b", bank="k", seed=1)
    measured = measure(fitted, drawn(2))
    assert measured.brier < 0.8 * measured.brier_of_the_mean
    assert sum(each.count for each in measured.reliability) == 400
    for each in measured.reliability:
        assert each.count < 30 or abs(each.mean_confidence - each.true) < 0.15
    whole = fitted.model_copy(update={"measured": measured})
    assert read_calibration(yaml.safe_load(bench.calibration_text(whole))) == whole
    assert fitted.with_contrast.contrast > 0.5


def test_facts_that_are_all_true_fit_nothing() -> None:
    with pytest.raises(ValueError, match="true and facts that are false"):
        fit([Judged(person="p", scores=scores(), is_true=True)], base="b", bank="k", seed=1)


def test_found_facts_read_back_from_json() -> None:
    each = fact("I love tea", contrast=None)  # type: ignore[arg-type]
    assert Found.from_json(each.to_json()) == each


def test_the_measures_tell_good_profiles_from_bad_ones() -> None:
    people = [make_person(seed) for seed in (0, 1)]
    good = {p.name: [fact(f"I love {t.about[0]}" if t.holds else f"I hate {t.about[0]}") for t in p.traits
                     if t.kind == "like"] for p in people}  # fmt: skip
    bad = {p.name: [fact(f"I love {thing}") for thing in p.absent] for p in people}
    met = {measure.measure.split(",")[0]: measure.met for measure in made_measures(people, good)}
    assert (met["precision"], met["recall of known traits"], met["facts on absent traits"]) == (True, True, True)
    met = {measure.measure.split(",")[0]: measure.met for measure in made_measures(people, bad)}
    assert (met["precision"], met["recall of known traits"], met["facts on absent traits"]) == (False, False, False)


def test_facts_that_do_not_turn_are_counted() -> None:
    person, negated = make_person(0), make_person(0, negated=True)
    liked = next(trait for trait in person.traits if trait.kind == "like" and trait.holds)
    same = {negated.name: [fact(f"I love {liked.about[0]}")]}
    turned = {negated.name: [fact(f"I hate {liked.about[0]}")]}
    assert turned_measures([negated], [person], same)[0].ours == 1
    assert turned_measures([negated], [person], turned)[0].ours == 0


def test_facts_that_stay_with_the_adapter_are_counted() -> None:
    people = [make_person(seed) for seed in (0, 1)]
    own = next(t for t in people[0].traits if t.kind == "like" and t.holds and t not in people[1].traits)
    swapped = {people[0].name: [fact(f"I love {own.about[0]}")], people[1].name: []}
    assert swapped_measures(people, swapped)[0].ours == 0.5


def test_what_is_not_sure_is_not_stated() -> None:
    facts = [fact("I love tea", contrast=3.0), fact("I love music", contrast=0.0)]
    kept = stated(facts, calibration=standard_calibration(), settings=ExtractionSettings())
    assert [each.text for each in kept] == ["I love tea"]


def perfect(person: MadePerson) -> list[Found]:
    """What a pipeline would propose that contrasts the person's traits with the base, and platitudes not."""
    own = find_own_statements(person.transcripts, bank=standard_bank(), limit=100)
    found = []
    for each in own:
        text, passage = each.clause.without_opener(), each.passages[0]
        quotes = ((each.clause.sentence, passage.transcript_id, passage.turn_index),)
        contrast = 0.1 if text in PLATITUDES else 2.5
        found.append(Found(text=text, scores=scores(contrast=contrast), quotes=quotes))
    return found


def test_a_perfect_pipeline_meets_every_bound(tmp_path: Path) -> None:
    tested, fitted = [make_person(n) for n in range(4)], [make_person(1000 + n) for n in range(4)]
    turned = [make_person(n, negated=True) for n in range(2)]
    facts = {person.name: perfect(person) for person in (*tested, *fitted, *turned)}
    swapped = {tested[n].name: perfect(tested[(n + 1) % 3]) for n in range(3)}
    own = {transcript.id: transcript for transcript in tested[0].transcripts}
    study = bench.Study(size=bench.Size(), work=tmp_path, say=lambda line: None)
    found = study._judge(tested, fitted, turned, facts=facts, swapped=swapped, real={"x": (facts[tested[0].name], own)})
    missed = [measure.measure for measure in found.measures if measure.met is False]
    assert missed == []
    assert found.calibration is not None
    assert found.calibration.measured is not None
    assert {measure.measure.split(",")[0] for measure in found.measures} >= {
        "precision", "recall of known traits", "facts a profile", "negated: facts that did not turn", "Brier score",
        "swapped: facts of the adapter's owner", "independently supported", "facts on absent traits",
    }  # fmt: skip


async def test_what_was_made_of_a_person_is_not_made_again_and_other_settings_make_it_anew(tmp_path: Path) -> None:
    made: list[int] = []

    async def make() -> list[Found]:
        made.append(len(made))
        return [fact(f"I love number {len(made)}")]

    study = bench.Study(size=bench.Size(), work=tmp_path)
    config = resolve(arguments={})
    first = await study._kept("facts/a", ["x"], config, make)
    assert await study._kept("facts/a", ["x"], config, make) == first
    assert made == [0]
    assert await study._kept("facts/a", ["y"], config, make) != first
    await study._kept("facts/a", ["x"], resolve(arguments={"steps": 3}), make)
    other = bench.Study(size=bench.Size(), work=tmp_path, extraction=ExtractionSettings(extraction_seed=1))
    await other._kept("facts/a", ["x"], config, make)
    assert made == [0, 1, 2, 3]
