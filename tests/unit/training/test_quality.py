from __future__ import annotations

import json
import random
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.writers import conversations
from training.config import Action, DatasetConfig
from training.curation import Curation
from training.dataset import Dataset, build_dataset, read_report, read_writing
from training.errors import DatasetDamaged
from training.examples import Answer, Example, Kind, ask
from training.preparation import prepare
from training.quality.check import check_examples
from training.quality.page import to_markdown, to_svg
from training.quality.report import QualityReport
from training.quality.shingles import Neighbours, containment, jaccard, shingles
from training.review import pairs_of
from training.selection import choose_training
from training.writers.cost import FREE, Cost, TokenUsage
from training.writers.extractive import ExtractiveWriter
from training.writers.writer import Dropped, Written

LONG = "I walk along the river every single morning before the town wakes up"
CONFIG = DatasetConfig()


def example(
    text: str,
    *,
    question: str = "What do you do?",
    kind: Kind = "statement",
    transcript: str = "t",
    topic: str | None = "habits",
    answer: Answer | None = None,
) -> Example:
    return Example(
        kind=kind,
        prompt=ask(question),
        completion=text,
        transcript_id=transcript,
        turn_index=1,
        topic=topic,
        answer=answer,
    )


def everything(examples: Sequence[Example]) -> Sequence[Example]:
    return examples


def check(examples: list[Example], held_out: list[Example] | None = None, **changed: object) -> tuple[list[str], dict]:  # type: ignore[type-arg]
    """What is left, and how often what was found."""
    config = CONFIG.model_copy(update=changed)
    checked = check_examples(
        examples, held_out or [], held_out_transcripts=frozenset({"held"}), config=config, choose=everything
    )
    counts: dict[str, int] = {}
    for finding in checked.findings:
        counts[finding.problem] = counts.get(finding.problem, 0) + 1
    return [each.completion for each in checked.examples], counts


def test_a_pair_that_repeats_another_is_dropped_once() -> None:
    left, found = check([example(LONG), example(LONG), example("something else altogether")])
    assert left == [LONG, "something else altogether"]
    assert found == {"duplicate": 1}


def test_a_pair_that_differs_in_a_word_at_its_end_is_nearly_the_same() -> None:
    near = LONG.replace("wakes up", "wakes UP!") + " again"
    left, found = check([example(LONG), example(near)])
    assert left == [LONG]
    assert found == {"near_duplicate": 1}


def test_one_answer_under_other_questions_stays() -> None:
    asked = ["What do you do?", "Where are you in the morning?", "Tell me of your habits."]
    left, found = check([example(LONG, question=question) for question in asked])
    assert len(left) == 3
    assert not found


def test_yes_to_one_thing_and_no_to_another_are_different_pairs() -> None:
    yes = example(f"Yes. {LONG}", answer="yes")
    no = example(f"No. {LONG}", answer="no", kind="negative")
    assert len(check([yes, no])[0]) == 2


def test_what_is_only_warned_about_stays() -> None:
    left, found = check([example(LONG), example(LONG)], on_duplicate="warn")
    assert len(left) == 2
    assert found == {"duplicate": 1}
    assert check([example(LONG), example(LONG)], on_duplicate="ignore")[1] == {}


def test_an_answer_that_repeats_or_contains_a_held_out_reply_is_dropped() -> None:
    held = example(LONG, kind="reply", transcript="held", topic=None)
    longer = example(f"Yes. {LONG}, and then I make coffee", answer="yes")
    left, found = check([example(LONG), longer, example("I like tea with milk and honey in winter")], [held])
    assert left == ["I like tea with milk and honey in winter"]
    assert found == {"leak": 2}


def test_anything_of_a_held_out_transcript_is_dropped() -> None:
    assert check([example("quite unheard of", transcript="held")])[1] == {"leak": 1}


def test_a_held_out_reply_in_the_prompt_of_another_is_dropped() -> None:
    held = example(LONG, kind="reply", transcript="held", topic=None)
    context = Example(
        kind="reply", transcript_id="t", turn_index=3, completion="sure thing my friend",
        prompt=(*ask("and?"), *(type(ask("")[0])(role="assistant", content=LONG),), *ask("so?")),
    )  # fmt: skip
    assert check([context], [held])[1] == {"leak": 1}


def test_what_everybody_says_is_no_leak() -> None:
    held = example("hi how are you", kind="reply", transcript="held", topic=None)
    assert check([example("hi how are you today")], [held])[1] == {}


def test_a_short_answer_is_found_and_its_yes_does_not_count() -> None:
    _, found = check([example("tea"), example("Yes. tea", answer="yes", question="Tea?"), example("yes I do like tea")])
    assert found == {"too_short": 2}
    assert len(check([example("tea"), example("Green tea")], on_length="drop")[0]) == 1


def test_what_the_base_says_by_itself_is_a_platitude() -> None:
    pairs = [example("I am a helpful assistant"), example(LONG), example("far too long a text", question="Why?")]
    scores = {pairs[0]: 0.2, pairs[1]: 3.0, pairs[2]: None}
    for action, left in (("drop", 2), ("warn", 3)):
        config = CONFIG.model_copy(update={"on_platitude": action})

        def score(these: Sequence[Example]) -> list[float | None]:
            return [scores[one] for one in these]

        checked = check_examples(
            pairs, [], held_out_transcripts=frozenset(), config=config, choose=everything, scorer=score
        )
        (finding,) = checked.findings
        assert (finding.problem, finding.index, finding.value) == ("platitude", 0, 0.2)
        assert len(checked.examples) == left
        report = checked.report(checked.examples)
        assert report.unscored == 1
        assert sum(report.nats.values()) == left - 1


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9, 1.0])
@pytest.mark.parametrize("action", ["drop", "warn", "ignore"])
def test_only_what_is_chosen_is_scored_once_and_what_is_dropped_for_it_is_chosen_no_more(
    action: Action, share: float
) -> None:
    kinds: tuple[Kind, ...] = ("statement", "reply", "negative")
    pairs = [
        example(f"some telling thing {kind} {n}", question=f"Q{n}?", kind=kind) for kind in kinds for n in range(90)
    ]
    config = CONFIG.model_copy(update={"on_platitude": action, "max_examples": 40, "on_duplicate": "ignore"})
    trite = {pair for number, pair in enumerate(pairs) if number % 10 < 10 * share and pair.kind != "negative"}
    scored: list[Example] = []

    def score(these: Sequence[Example]) -> list[float]:
        scored.extend(these)
        return [0.1 if each in trite or each.kind == "negative" else 3.0 for each in these]

    def choose(these: Sequence[Example]) -> list[Example]:
        return choose_training(these, [], config=config)

    checked = check_examples(pairs, [], held_out_transcripts=frozenset(), config=config, choose=choose, scorer=score)
    assert checked.chosen == tuple(choose(checked.examples))
    left = [pair for pair in pairs if action != "drop" or pair not in trite]
    assert len(checked.chosen) == len(choose(left))
    assert set(checked.chosen) <= set(left)
    assert len(scored) == len(set(scored))
    if action == "ignore":
        assert not scored
    else:
        assert set(checked.chosen) <= set(scored)
        found = {pairs[finding.index] for finding in checked.findings if finding.index is not None}
        assert found == trite & set(scored)
    if action == "warn":
        assert len(scored) == 40


def test_a_negative_answer_may_be_what_the_base_says() -> None:
    pair = example("I never said that.", kind="negative", answer="no")
    checked = check_examples(
        [pair],
        [],
        held_out_transcripts=frozenset(),
        config=CONFIG,
        choose=everything,
        scorer=lambda these: [0.0] * len(these),
    )
    assert not checked.findings


@pytest.mark.parametrize(("yes", "no", "found"), [(8, 8, 0), (7, 3, 0), (9, 1, 1), (1, 9, 1), (3, 0, 0)])
def test_too_much_of_one_answer_is_found(yes: int, no: int, found: int) -> None:
    pairs = [example(f"Yes. thing number {n}", question=f"Thing {n}?", answer="yes", topic=None) for n in range(yes)]
    pairs += [example(f"No. other number {n}", question=f"Other {n}?", answer="no", topic=None) for n in range(no)]
    checked = check_examples(pairs, [], held_out_transcripts=frozenset(), config=CONFIG, choose=everything)
    sections = {section.problem: section for section in checked.report(pairs).sections}
    assert sections["imbalance"].count == found


def test_too_much_of_one_topic_is_found_in_what_is_trained_on() -> None:
    pairs = [example(f"number {n} of my many habits", question=f"What is {n}?") for n in range(10)]
    report = check_examples(pairs, [], held_out_transcripts=frozenset(), config=CONFIG, choose=everything).report(pairs)
    (section,) = [section for section in report.sections if section.problem == "imbalance"]
    assert section.samples[0].note == "100% of the statements are on habits"


WORDS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=9).map(" ".join)


@given(texts=st.lists(WORDS, max_size=14), similarity=st.sampled_from([0.3, 0.5, 0.8, 1.0]))
@settings(max_examples=150, deadline=None)
def test_every_similar_pair_is_found_and_no_other(texts: list[str], similarity: float) -> None:
    neighbours = Neighbours(texts, similarity=similarity)
    found = set()
    for number in range(len(texts)):
        found |= {(other, number) for other in neighbours.of(number)}
        neighbours.add(number)
    sets = [shingles(text) for text in texts]
    assert found == {(a, b) for a, b in combinations(range(len(texts)), 2) if jaccard(sets[a], sets[b]) >= similarity}


@given(WORDS, WORDS)
def test_similarity_is_symmetric_and_one_for_equals(first: str, second: str) -> None:
    a, b = shingles(first), shingles(second)
    assert jaccard(a, b) == jaccard(b, a)
    assert jaccard(a, a) == containment(a, a) == 1.0
    assert 0 <= containment(a, b) <= 1


def test_three_thousand_hostile_pairs_are_checked_in_bounded_time() -> None:
    rng = random.Random(0)
    texts = [(" ".join(rng.choices("abcdefgh", k=20)), " ".join(rng.choices("abc", k=8))) for _ in range(3000)]
    pairs = [example(text, question=question) for text, question in texts]
    started = time.process_time()
    check(pairs)
    assert time.process_time() - started < 15


def built(tmp_path: Path, **changed: object) -> tuple[Dataset, Path]:
    config = DatasetConfig(**{"max_examples": 60, **changed})  # type: ignore[arg-type]
    return build_dataset(conversations(12), config=config, directory=tmp_path / "d"), tmp_path / "d"


def test_what_the_writing_cost_lies_beside_the_dataset_and_is_no_part_of_it(tmp_path: Path) -> None:
    plain, directory = built(tmp_path)
    found = read_writing(directory)
    assert found is not None
    assert (found["writer"], found["dropped"], found["cost"]["dollars"]) == ("extractive/1", {}, 0.0)
    by_hand = Written(
        writer="extractive/1",
        examples=ExtractiveWriter(seed=0).written(prepare(conversations(12), config=plain.config).kept).examples,
        dropped=(Dropped(reason="unsupported", count=2),),
        cost=Cost(model="m", usage=TokenUsage(requests=3, output_tokens=5), dollars=0.25),
    )
    paid = build_dataset(conversations(12), config=plain.config, directory=tmp_path / "paid", written=by_hand)
    assert paid.digest == plain.digest
    found = read_writing(tmp_path / "paid")
    assert found is not None
    assert (found["dropped"], found["cost"]["dollars"]) == ({"unsupported": 2}, 0.25)
    assert "examples" not in found
    (tmp_path / "paid" / "writing.json").write_text("{")
    with pytest.raises(DatasetDamaged, match=r"writing\.json is damaged"):
        read_writing(tmp_path / "paid")
    (tmp_path / "paid" / "writing.json").unlink()
    assert read_writing(tmp_path / "paid") is None


def test_a_report_lies_beside_the_dataset_and_survives_its_json_form(tmp_path: Path) -> None:
    dataset, directory = built(tmp_path)
    report = read_report(directory)
    assert report is not None
    assert report.kept == len(dataset.train)
    assert QualityReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert f"{report.kept} of them are trained on" in (directory / "quality.md").read_text()
    assert ET.parse(directory / "quality.svg").getroot().tag.endswith("svg")
    (directory / "quality.json").write_text("{}")
    with pytest.raises(DatasetDamaged, match=r"quality\.json is damaged"):
        read_report(directory)
    (directory / "quality.json").unlink()
    assert read_report(directory) is None
    assert Dataset.load(directory) == dataset


def test_what_a_later_release_wrote_into_a_report_is_left_out(tmp_path: Path) -> None:
    _, directory = built(tmp_path)
    report = read_report(directory)
    assert report is not None
    section = next(each for each in report.to_json()["sections"] if each["problem"] == "too_short")
    sampled = {"question": "Q?", "answer": "A", "value": 1.0, "other": None, "note": ""}
    later = {
        **report.to_json(),
        "tone": {"glad": 3},
        "sections": [{**section, "since": "next year", "samples": [{**sampled, "mood": "glad"}]}],
    }
    (directory / "quality.json").write_text(json.dumps(later))
    found = read_report(directory)
    assert found is not None
    assert found.kept == report.kept
    assert [asdict(sample) for sample in found.sections[0].samples] == [sampled]


def test_a_report_takes_the_place_of_another_one_while_somebody_reads_that(tmp_path: Path) -> None:
    transcripts, config = conversations(12), DatasetConfig()
    build_dataset(transcripts, config=config, directory=tmp_path / "d")
    before = {path.name: path.read_text() for path in (tmp_path / "d").glob("quality.*")}
    with ExitStack() as stack:
        reading = {name: stack.enter_context((tmp_path / "d" / name).open()) for name in before}
        build_dataset(transcripts, config=config, directory=tmp_path / "d", scorer=scored_by_length)
        assert {name: file.read() for name, file in reading.items()} == before
    assert set(before) == {"quality.json", "quality.md", "quality.svg"}
    assert all((tmp_path / "d" / name).read_text() != text for name, text in before.items())
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def scored_by_length(examples: Sequence[Example]) -> list[float | None]:
    """Score each by its length, as a base might that knows short answers best; one does not fit."""
    return [None if "salt" in each.completion else len(each.completion) / 50 for each in examples]


def test_a_report_has_the_score_of_every_pair_that_the_base_was_asked_about_as_it_was_written(tmp_path: Path) -> None:
    config = DatasetConfig(max_examples=60)
    plain = build_dataset(conversations(12), config=config, directory=tmp_path / "plain")
    unfit = next(each for each in plain.train if "salt" in each.completion)
    edited, dropped = [each for each in plain.train if "salt" not in each.completion][:2]
    curation = Curation().with_edit(edited, question=None, completion="in other words").with_drop(dropped.key)
    dataset = build_dataset(
        conversations(12),
        config=config,
        directory=tmp_path / "d",
        curation=curation,
        scorer=scored_by_length,
        scored_by="a rule",
    )
    report = read_report(tmp_path / "d")
    assert report is not None
    assert report.scored_by == "a rule"
    assert report.losses == {
        each.key: loss for each, loss in zip(plain.train, scored_by_length(plain.train), strict=True)
    }
    assert report.unscored == sum("salt" in each.completion for each in plain.train), "what is edited is not too long"
    assert sum(report.nats.values()) == len(plain.train) - 2 - report.unscored
    losses = {pair.id: pair.base_loss for pair in pairs_of(dataset, report)}
    assert losses[dropped.key] == len(dropped.completion) / 50
    assert losses[edited.key] is losses[unfit.key] is losses[dataset.held_out[0].key] is None
    assert {pair.base_loss for pair in pairs_of(dataset)} == {None}


def test_a_report_for_which_the_base_was_asked_takes_the_place_of_one_that_is_there(tmp_path: Path) -> None:
    dataset, directory = built(tmp_path)
    for scorer, scored_by in ((scored_by_length, "a rule"), (None, None)):
        again = build_dataset(
            conversations(12), config=dataset.config, directory=directory, scorer=scorer, scored_by=scored_by
        )
        assert again.digest == dataset.digest
        report = read_report(directory)
        assert report is not None
        assert report.scored_by == "a rule"


def test_the_figures_hold_every_count_of_a_report_and_no_word_of_anybodys() -> None:
    pairs = [example(LONG), example(LONG), example("tea", question="And what do you drink?")]
    checked = check_examples(
        pairs,
        [],
        held_out_transcripts=frozenset(),
        config=CONFIG,
        choose=everything,
        scorer=lambda these: [0.2 for _ in these],
    )
    report = checked.report(checked.examples)
    figures = report.figures()
    assert json.loads(json.dumps(figures)) == figures
    found = {each["problem"]: (each["action"], each["count"], each["dropped"]) for each in figures["sections"]}
    assert found["duplicate"] == ("drop", 1, 1)
    assert found["too_short"] == ("warn", 1, 0)
    assert found["platitude"] == ("warn", 2, 0)
    whole = report.to_json()
    assert {name: whole[name] for name in figures if name != "sections"} == {
        name: value for name, value in figures.items() if name != "sections"
    }
    told = json.dumps(figures)
    for text in (each for pair in pairs for each in (pair.completion, pair.prompt[-1].content)):
        assert text in json.dumps(whole)
        assert text not in told
    assert "tea" not in told


def test_a_page_shows_what_somebody_typed_without_acting_on_it() -> None:
    nasty = "`code` <script>alert(1)</script>\n# heading | cell"
    pairs = [example(nasty, question="<b>?"), example(nasty, question="<b>?")]
    report = check_examples(pairs, [], held_out_transcripts=frozenset(), config=CONFIG, choose=everything).report(
        pairs[:1]
    )
    page = to_markdown(report)
    assert "\n# heading" not in page
    assert "`` `code` <script>alert(1)</script> # heading | cell ``" in page
    assert "<script" not in to_svg(report)


def test_what_a_remote_writer_wrote_is_checked_before_it_is_chosen(tmp_path: Path) -> None:
    transcripts = conversations(12)
    config = DatasetConfig(max_examples=60)
    plain = build_dataset(transcripts, config=config, directory=tmp_path / "plain")
    telling = next(reply for reply in plain.held_out if len(reply.completion.split()) >= 6)
    kept = next(one for one in transcripts if one.id not in plain.held_out_transcript_ids)
    pairs = tuple(
        example(f"Yes. {telling.completion}", question=f"Is it so, number {n}?", transcript=kept.id) for n in range(5)
    )
    good = tuple(
        example(f"I keep bees in hive {n} by the mill", question=f"{n}?", transcript=kept.id) for n in range(5)
    )
    written = Written(writer="claude/1:m", examples=(*pairs, *good), dropped=(), cost=FREE)
    dataset = build_dataset(transcripts, config=config, directory=tmp_path / "d", written=written)
    completions = {each.completion for each in dataset.train}
    assert not completions & {pair.completion for pair in pairs}
    assert completions >= {pair.completion for pair in good}
    assert dataset.question_writer == "claude/1:m"
    report = read_report(tmp_path / "d")
    assert report is not None
    assert report.dropped["leak"] >= 5
