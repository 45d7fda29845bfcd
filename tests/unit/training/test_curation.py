from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.writers import conversations
from training.config import DatasetConfig
from training.curation import Curation, Decision, edit
from training.dataset import Dataset, build_dataset
from training.errors import CurationInvalid, DatasetDamaged, DatasetTooSmall
from training.examples import Example, ask
from training.preparation import prepare
from training.review import find_pair, pairs_of
from transcripts.redaction import Redactor

TRANSCRIPTS = conversations(12)
CONFIG = DatasetConfig(max_examples=40)


def build(tmp_path: Path, name: str, curation: Curation | None = None) -> Dataset:
    return build_dataset(TRANSCRIPTS, config=CONFIG, directory=tmp_path / name, curation=curation)


def pair(text: str = "Yes. I do like tea", question: str = "Do you like tea?") -> Example:
    return Example(
        kind="statement", prompt=ask(question), completion=text, transcript_id="t", turn_index=1, answer="yes"
    )


def test_a_dropped_pair_is_gone_and_nothing_else_moves(tmp_path: Path) -> None:
    before = build(tmp_path, "before")
    gone = before.train[3]
    after = build(tmp_path, "after", Curation().with_drop(gone.key, by="ann"))
    assert after.train == tuple(each for each in before.train if each != gone)
    assert after.held_out == before.held_out
    assert after.set_aside == (gone,)
    assert after.digest != before.digest
    assert Dataset.load(tmp_path / "after") == after


def test_an_edited_pair_stands_where_it_stood(tmp_path: Path) -> None:
    before = build(tmp_path, "before")
    target = before.train[5]
    after = build(tmp_path, "after", Curation().with_edit(target, question=None, completion="something else I said"))
    assert after.train[5].completion == "something else I said"
    assert after.train[5].prompt == target.prompt
    assert [a == b for a, b in zip(before.train, after.train, strict=True)].count(False) == 1
    assert after.set_aside == (target,)


def test_restoring_leaves_no_trace(tmp_path: Path) -> None:
    before = build(tmp_path, "before")
    key = before.train[0].key
    after = build(tmp_path, "after", Curation().with_drop(key).without(key))
    assert after.digest == before.digest


def test_who_decided_and_when_is_no_part_of_the_dataset(tmp_path: Path) -> None:
    key = build(tmp_path, "before").train[0].key
    one = build(tmp_path, "one", Curation().with_drop(key, by="ann"))
    two = build(tmp_path, "two", Curation().with_drop(key, by="bob"))
    assert one.digest == two.digest
    assert one.curation.decisions[key].by == "ann"


def test_a_decision_about_a_pair_that_is_not_written_any_more_does_nothing(tmp_path: Path) -> None:
    plain = build(tmp_path, "plain")
    stale = build(tmp_path, "stale", Curation().with_drop("0123456789abcdef"))
    assert stale.digest == plain.digest


def test_a_held_out_reply_can_be_dropped_but_not_edited(tmp_path: Path) -> None:
    before = build(tmp_path, "before")
    reply = before.held_out[0]
    dropped = build(tmp_path, "dropped", Curation().with_drop(reply.key))
    assert reply not in dropped.held_out
    assert len(dropped.held_out) == len(before.held_out) - 1
    edited = build(tmp_path, "edited", Curation().with_edit(reply, question=None, completion="what I never typed"))
    assert edited.held_out == before.held_out


def test_an_edit_that_gives_a_held_out_reply_away_is_left_out(tmp_path: Path) -> None:
    before = build(tmp_path, "before")
    target = before.train[2]
    curation = Curation().with_edit(target, question=None, completion=f"well, {before.held_out[0].completion}")
    after = build(tmp_path, "after", curation)
    assert len(after.train) == len(before.train) - 1
    assert target not in after.train


def test_dropping_too_much_is_refused_as_too_small(tmp_path: Path) -> None:
    curation = Curation()
    for each in build(tmp_path, "before").train:
        curation = curation.with_drop(each.key)
    with pytest.raises(DatasetTooSmall):
        build(tmp_path, "after", curation)


def test_a_dataset_whose_curation_was_changed_is_damaged(tmp_path: Path) -> None:
    key = build(tmp_path, "before").train[0].key
    build(tmp_path, "d", Curation().with_drop(key))
    path = tmp_path / "d" / "curation.json"
    path.write_text(path.read_text().replace('"drop"', '"keep"'))
    with pytest.raises(DatasetDamaged):
        Dataset.load(tmp_path / "d")
    (tmp_path / "before" / "examples" / "set_aside.jsonl").unlink()
    with pytest.raises(DatasetDamaged, match="set_aside"):
        Dataset.load(tmp_path / "before")


def test_a_key_names_what_is_asked_and_answered_only() -> None:
    one, two = pair(), Example.from_json({**pair().to_json(), "transcript_id": "other", "turn_index": 9})
    assert one.key == two.key
    assert one.key != pair("No. I do not").key
    assert one.key != pair(question="Tea?").key


def test_an_edit_keeps_a_yes_no_question_one_while_its_answer_is_yes_or_no() -> None:
    assert edit(pair(), question=None, completion="Yes, very much").answer == "yes"
    assert edit(pair(), question=None, completion="No, never").answer == "no"
    assert edit(pair(), question="What do you like?", completion="Tea").answer is None


@pytest.mark.parametrize(
    ("question", "completion", "message"),
    [
        (None, "  ", "completion is empty"),
        ("", None, "question is empty"),
        (None, "x" * 20_001, "longer than"),
        (None, "a\x00b", "cannot be stored"),
        ("\ud800", None, "cannot be stored"),
        (None, None, "changes nothing"),
        (None, "Yes. I do like tea", "changes nothing"),
    ],
)
def test_an_edit_that_cannot_be_is_refused(question: str | None, completion: str | None, message: str) -> None:
    with pytest.raises(CurationInvalid, match=message):
        Curation().with_edit(pair(), question=question, completion=completion)


def test_a_review_shows_every_pair_under_the_name_it_was_written_with(tmp_path: Path) -> None:
    before = build(tmp_path, "before")
    dropped, edited, reply = before.train[1], before.train[4], before.held_out[0]
    curation = Curation().with_drop(dropped.key, by="ann").with_edit(edited, question=None, completion="edited so")
    dataset = build(tmp_path, "after", curation)
    pairs = {pair.id: pair for pair in pairs_of(dataset)}
    assert len(pairs) == len(before.train) + len(before.held_out)
    assert pairs[dropped.key].status == "dropped"
    assert pairs[dropped.key].to_json()["decided"]["by"] == "ann"
    assert pairs[edited.key].to_json()["completion"] == "edited so"
    assert pairs[edited.key].to_json()["written"]["completion"] == edited.completion
    assert pairs[reply.key].status == "held_out"
    assert json.loads(json.dumps(pairs[reply.key].to_json()))["completion"] == reply.completion


def test_a_pair_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    pairs = pairs_of(build(tmp_path, "d"))
    assert find_pair(pairs, pairs[7].id[:12]) == pairs[7]
    with pytest.raises(CurationInvalid, match="no pair"):
        find_pair(pairs, "ffffffffffffffff0")
    with pytest.raises(CurationInvalid, match="too short"):
        find_pair(pairs, pairs[0].id[:3])


def test_decisions_survive_their_json_form() -> None:
    curation = Curation().with_drop("k" * 16, by="ann").with_edit(pair(), question=None, completion="n")
    assert Curation.from_json(json.loads(json.dumps(curation.to_json()))) == curation


@pytest.mark.parametrize(
    "text",
    [
        "[]", "{}", "1", '{"schema": "lorry.curation/1"}', '{"schema": "lorry.curation/1", "decisions": []}',
        '{"schema": "lorry.curation/1", "decisions": {"k": 1}}',
        '{"schema": "lorry.curation/1", "decisions": {"k": {"action": "keep", "question": null, "completion": null}}}',
        '{"schema": "lorry.curation/1", "decisions": {"k": {"action": "edit", "question": 1, "completion": null}}}',
    ],
)  # fmt: skip
def test_what_is_no_curation_is_refused(text: str) -> None:
    with pytest.raises(CurationInvalid):
        Curation.from_json(json.loads(text))


SECRET = " write to ada.lovelace@example.org now"


def test_a_redacted_dataset_names_transcripts_as_they_are_stored(tmp_path: Path) -> None:
    said = conversations(12, secret=SECRET)
    dataset = build_dataset(said, config=CONFIG, directory=tmp_path / "d", redactor=Redactor())
    assert set(dataset.transcript_ids) == {one.id for one in said}
    assert {each.transcript_id for each in (*dataset.train, *dataset.held_out)} <= set(dataset.transcript_ids)
    assert "ada.lovelace" not in "".join(path.read_text() for path in (tmp_path / "d").rglob("*.*"))
    assert dataset.redaction is not None
    assert dataset.redaction["counts"] == {"email": 12}
    assert Dataset.load(tmp_path / "d") == dataset


def test_transcripts_that_redaction_makes_equal_are_all_named(tmp_path: Path) -> None:
    mails = (" write to ada@example.org", " write to bob@example.org")
    said = [one for mail in mails for one in conversations(12, secret=mail)]
    dataset = build_dataset(said, config=CONFIG, directory=tmp_path / "d", redactor=Redactor())
    assert dataset.transcript_ids == tuple(sorted(one.id for one in said))


def test_redaction_moves_nothing_across_the_split() -> None:
    said = conversations(12, secret=SECRET)
    plain, redacted = prepare(said, config=CONFIG), prepare(said, config=CONFIG, redactor=Redactor())
    assert {redacted.originals[one.id] for one in redacted.held} == {one.id for one in plain.held}
    assert set(redacted.by_original) == {one.id for one in plain.kept}
    assert not {one.id for one in redacted.held} & {one.id for one in redacted.kept}


def test_other_redaction_gives_another_digest(tmp_path: Path) -> None:
    plain = build_dataset(TRANSCRIPTS, config=CONFIG, directory=tmp_path / "plain")
    redacted = build_dataset(TRANSCRIPTS, config=CONFIG, directory=tmp_path / "redacted", redactor=Redactor())
    assert plain.train == redacted.train
    assert plain.digest != redacted.digest


def test_what_a_reviewer_types_is_redacted_like_what_the_user_said(tmp_path: Path) -> None:
    said = conversations(12, secret=SECRET)
    before = build_dataset(said, config=CONFIG, directory=tmp_path / "before", redactor=Redactor())
    asked, answered = before.train[2], before.train[5]
    typed = Curation().with_edit(asked, question="Is ann@example.org yours?", completion="I have a list, not a mail")
    typed = typed.with_edit(answered, question=None, completion="call me on +1 415 555 2671, or ann@example.org")
    dataset = build_dataset(said, config=CONFIG, directory=tmp_path / "d", redactor=Redactor(), curation=typed)
    assert dataset.train[2].prompt[-1].content == "Is [redacted email] yours?"
    assert dataset.train[5].completion == "call me on [redacted phone], or [redacted email]"
    held = "".join(path.read_text() for path in (tmp_path / "d").rglob("*.*"))
    assert "ann@" not in held
    assert "415" not in held
    assert before.redaction is not None
    assert dataset.redaction is not None
    assert before.redaction["counts"] == {"email": 12}
    assert dataset.redaction["counts"] == {"email": 14, "phone": 1}
    assert Dataset.load(tmp_path / "d") == dataset
    edited = [pair for pair in pairs_of(dataset) if pair.status == "edited"]
    assert [pair.id for pair in edited] == [asked.key, answered.key]
    again = build_dataset(
        said, config=CONFIG, directory=tmp_path / "again", redactor=Redactor(), curation=dataset.curation
    )
    assert again.train == dataset.train
    assert again.redaction == before.redaction, "a placeholder is nobody's secret"


def test_an_edit_that_redaction_makes_longer_than_one_may_be_stays_one(tmp_path: Path) -> None:
    said = conversations(12)
    before = build_dataset(said, config=CONFIG, directory=tmp_path / "before", redactor=Redactor())
    long = "mail a@example.org " * 950
    typed = Curation().with_edit(before.train[0], question=None, completion=long)
    dataset = build_dataset(said, config=CONFIG, directory=tmp_path / "d", redactor=Redactor(), curation=typed)
    (edited,) = [pair for pair in pairs_of(Dataset.load(tmp_path / "d")) if pair.status == "edited"]
    assert edited.example == dataset.train[0]
    assert len(long) < 20_000 < len(edited.example.completion)


def test_a_secret_that_the_transcripts_give_away_is_taken_out_of_an_edit_that_does_not(tmp_path: Path) -> None:
    said = conversations(12, secret=", my password is hunter22")
    before = build_dataset(said, config=CONFIG, directory=tmp_path / "before", redactor=Redactor())
    typed = Curation().with_edit(before.train[2], question=None, completion="I type hunter22 each morning")
    dataset = build_dataset(said, config=CONFIG, directory=tmp_path / "d", redactor=Redactor(), curation=typed)
    assert dataset.train[2].completion == "I type [redacted secret] each morning"
    plain = build_dataset(said, config=CONFIG, directory=tmp_path / "plain", curation=typed)
    assert "hunter22" in plain.train[2].completion, "redaction is switched off"


def test_an_edit_without_a_secret_or_without_its_pair_changes_no_redaction(tmp_path: Path) -> None:
    said = conversations(12, secret=SECRET)
    before = build_dataset(said, config=CONFIG, directory=tmp_path / "before", redactor=Redactor())
    stale = Curation().with_edit(pair(), question=None, completion="mail ann@example.org")
    gone = Decision(action="drop", question="ann@example.org?")  # no command writes this; a file may hold it
    reply = Curation().with_edit(before.held_out[0], question=None, completion="mail ann@example.org")
    for number, curation in enumerate((stale, Curation(decisions={"k": gone}), reply)):
        built = build_dataset(
            said, config=CONFIG, directory=tmp_path / str(number), redactor=Redactor(), curation=curation
        )
        assert built.digest == before.digest
    harmless = Curation().with_edit(before.train[2], question=None, completion="something else I said")
    edited = build_dataset(said, config=CONFIG, directory=tmp_path / "e", redactor=Redactor(), curation=harmless)
    assert edited.redaction == before.redaction
    assert edited.curation == harmless
    dropped = Curation(decisions={before.held_out[0].key: gone})
    build_dataset(said, config=CONFIG, directory=tmp_path / "dropped", redactor=Redactor(), curation=dropped)
    assert "ann@example" not in (tmp_path / "dropped" / "curation.json").read_text()
