"""What `lorry review` reads from its arguments and decides; the command itself is run on a real database elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from lorry.commands.review import KindName, StatusName, _cut, _read_edit
from lorry.errors import FileUnreadable
from lorry.stages.reviewing import Edit, _decided, _decision
from training.curation import Curation, Decision
from training.errors import CurationInvalid
from training.examples import KINDS, Example, ask
from training.review import Pair, Status


def pair(status: Status = "kept", decision: Decision | None = None) -> Pair:
    example = Example(
        kind="statement", prompt=ask("What do you like?"), completion="I like tea", transcript_id="t", turn_index=1
    )
    return Pair(id=example.key, status=status, example=example, written=example, decision=decision)


def test_the_command_takes_every_kind_and_status_there_is() -> None:
    assert [kind.value for kind in KindName] == list(KINDS)
    assert [status.value for status in StatusName] == list(get_args(Status))


def test_a_text_file_is_the_new_answer(tmp_path: Path) -> None:
    (tmp_path / "a=b.txt").write_text("  I like\ncoffee \n")
    assert _read_edit(f"abcd={tmp_path / 'a=b.txt'}") == ("abcd", Edit(completion="I like\ncoffee"))


def test_a_json_file_may_change_both(tmp_path: Path) -> None:
    path = tmp_path / "edit"
    path.write_text('\n{"question": "So?", "completion": "Yes"}')
    assert _read_edit(f"abcd={path}")[1] == Edit(question="So?", completion="Yes")
    path.write_text('{"question": "So?"}')
    assert _read_edit(f"abcd={path}")[1] == Edit(question="So?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"question": ' + "[" * 100_000, "is not JSON"),
        ("{}", "must hold"),
        ('{"completion": 7}', "must hold"),
        ('{"completion": "a", "answer": "b"}', "must hold"),
        ('{"completion": null}', "must hold"),
        (b"\xff\xfe\xff", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_edit_is_refused_by_name(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "edit"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileUnreadable, match=message) as caught:
        _read_edit(f"abcd={path}")
    assert caught.value.field == str(path)


@pytest.mark.parametrize("given", ["abcd", "=file", "abcd=", ""])
def test_an_edit_names_a_pair_and_a_file(given: str) -> None:
    with pytest.raises(FileUnreadable, match="ID=FILE"):
        _read_edit(given)


def test_decisions_say_what_is_done_and_who_decided() -> None:
    dropped = _decision(pair(), None, by="ann")
    assert (dropped.action, dropped.by) == ("drop", "ann")
    edited = _decision(pair(), Edit(completion="coffee"), by="ann")
    assert (edited.action, edited.completion, edited.by) == ("edit", "coffee", "ann")


def test_what_cannot_be_decided_is_refused() -> None:
    with pytest.raises(CurationInvalid, match="not edited"):
        _decision(pair("held_out"), Edit(completion="x"), by="ann")
    with pytest.raises(CurationInvalid, match="empty"):
        _decision(pair(), Edit(completion=" "), by="ann")
    with pytest.raises(CurationInvalid, match="changes nothing"):
        _decision(pair(), Edit(completion="I like tea"), by="ann")


def test_a_decision_is_taken_back_by_the_beginning_of_its_pairs_id() -> None:
    stored = Curation().with_drop("abcd" * 4).with_drop("abce" * 4)
    assert _decided(stored, "abcda") == "abcd" * 4
    for name in ("abc", "ffff", ""):
        with pytest.raises(CurationInvalid, match="nothing was decided"):
            _decided(stored, name)
    with pytest.raises(CurationInvalid, match="2 decisions"):
        _decided(stored.with_drop("abcd" * 3 + "ffff"), "abcdabcd")


def test_a_cell_of_the_table_is_one_line_and_no_markup() -> None:
    assert _cut("a\n[redacted secret]  c") == "a [redacted secret] c"  # a cell's text is no markup
    assert len(_cut("x" * 500)) == 100
