from __future__ import annotations

import io
import json
import time
from datetime import UTC, datetime

import pytest
import typer
from rich.console import Console

from kit.errors import DatabaseUnavailable, InvalidName, LorryError
from kit.words import counted
from lorry import output
from lorry.errors import NotThere
from lorry.output import (
    EXIT_MEANINGS,
    Bar,
    exit_code,
    print_json,
    print_table,
    progress,
    report_error,
    run,
    say,
    shown,
)
from serving.errors import EngineBusy
from training.errors import WriterTooExpensive
from training.jobs.errors import QuotaExhausted, TrainingActive


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed to standard error, by a console of 40 columns that is no terminal."""
    text = io.StringIO()
    monkeypatch.setattr(output, "err", Console(file=text, width=40, force_terminal=False))
    return text


LONG = "a message of many words that does not fit into one line"


def test_an_error_is_wrapped_with_its_heading_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(output, "err", Console(file=text, width=40, force_terminal=True, color_system=None))
    report_error(LorryError(LONG, field="some/where"), as_json=False)
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("error: a message")
    assert max(map(len, lines)) <= 40


def test_an_error_that_goes_to_a_file_keeps_its_lines_whole(stderr: io.StringIO) -> None:
    report_error(LorryError(LONG, field=f"some/{'long/' * 10}where"), as_json=False)
    assert stderr.getvalue() == f"error: {LONG}\n  at: some/{'long/' * 10}where\n"


def test_what_others_wrote_moves_no_cursor(stderr: io.StringIO) -> None:
    hostile = "a\x1b]52;c;cm0gLXJm\x07\x1b[2J\x9b1m\u202eb\ttab\nline é 🐝"
    report_error(LorryError(hostile, field=f"{hostile}:2"), as_json=False)
    print_table("t", ["name"], [[hostile]], on=output.err)
    assert not set(stderr.getvalue()) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert shown(hostile) == "a\\x1b]52;c;cm0gLXJm\\x07\\x1b[2J\\x9b1m\\u202eb\ttab\nline é 🐝"


def test_brackets_that_others_wrote_are_shown_and_mean_nothing(stderr: io.StringIO) -> None:
    print_table("of [/ann]", ["why"], [["[/oops] see [red]7"]], on=output.err)
    assert "of [/ann]" in stderr.getvalue()
    assert "[/oops] see [red]7" in stderr.getvalue()


def test_an_error_says_where_only_when_that_says_more(stderr: io.StringIO) -> None:
    report_error(NotThere("nobody has no transcripts", field="user"), as_json=False)
    assert "at:" not in stderr.getvalue()
    report_error(InvalidName(field="user_id"), as_json=False)
    assert "  at: user_id" in stderr.getvalue()


def test_with_json_standard_error_holds_the_failure_and_nothing_else(stderr: io.StringIO) -> None:
    async def fail() -> None:
        say("starting")
        with progress() as bars:
            Bar(bars, "working")(1, 2)
        print_table("Shown on the way", ["a"], [["1"]], on=output.err)
        raise DatabaseUnavailable("a long reason with [brackets] that is wider than the console of this test")

    with pytest.raises(typer.Exit) as ended:
        run(fail(), as_json=True)
    assert ended.value.exit_code == 5
    assert json.loads(stderr.getvalue())["error"] == "database-unavailable"


def test_without_a_terminal_progress_is_told_in_lines(stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress() as bars:
        bar, second = Bar(bars, "training ann"), Bar(bars, "training bob", waits=True)
        for step in range(1, 5):
            now = step * 9.0
            bar(step, 4, f"loss {5 - step}")
        bar.finish("loss 1")
        now = 100.0
        second(1, 1)
        now = 101.0
        second.finish()
    assert stderr.getvalue().splitlines() == [
        "training ann …",
        "training ann: 3 of 4, loss 2",
        "training ann: done in 36 s, loss 1",
        "training bob …",
        "training bob: done in 1 s",
    ]


@pytest.mark.parametrize(("calls", "total", "shown"), [([(14, 0)], None, 14), ([], 40, 40), ([(3, 9)], None, 9)])
def test_a_finished_bar_shows_how_much_was_done(
    calls: list[tuple[int, int]], total: int | None, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "err", Console(file=io.StringIO(), force_terminal=True))
    with progress() as bars:
        assert bars is not None
        bar = Bar(bars, "working")
        for done, of in calls:
            bar(done, of)
        bar.finish(total=total)
        assert (bars.tasks[0].completed, bars.tasks[0].total) == (shown, shown)


def test_a_bar_that_waits_has_no_time_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "err", Console(file=io.StringIO(), force_terminal=True))
    with progress() as bars:
        assert bars is not None
        bar = Bar(bars, "training bob", waits=True)
        assert bars.tasks[0].elapsed is None
        bar(1, 2)
        assert bars.tasks[0].elapsed is not None


def test_a_time_is_iso_8601_in_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(output, "out", Console(file=text))
    print_json({"at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC)})
    assert json.loads(text.getvalue()) == {"at": "2026-01-02T03:04:00+00:00"}


@pytest.mark.parametrize(("number", "words"), [(0, "0 statements"), (1, "1 statement"), (2, "2 statements")])
def test_one_is_not_many(number: int, words: str) -> None:
    assert counted(number, "statement") == words


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (QuotaExhausted(), 6),
        (WriterTooExpensive(), 6),
        (EngineBusy(), 5),
        (NotThere(), 3),
        (TrainingActive(), 4),
        (InvalidName(), 2),
        (LorryError(), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, LorryError) else str(value),
)
def test_each_kind_of_refusal_has_its_exit_code(refusal: LorryError, code: int) -> None:
    assert exit_code(refusal) == code
    assert code in EXIT_MEANINGS


def printed(*, width: int, spare: tuple[str, ...] = ()) -> str:
    """A table of three columns on a console of that width."""
    text = io.StringIO()
    rows = [["chitchat-1a2b3c4d", "smollm2-135m-instruct", "2"], ["ann", "—", "0"]]
    print_table("Adapters", ["owner", "base", "versions"], rows, spare=spare, on=Console(file=text, width=width))
    return text.getvalue()


def test_a_narrow_table_leaves_out_what_can_be_spared_rather_than_break_words() -> None:
    narrow = printed(width=40, spare=("base",))
    assert "chitchat-1a2b3c4d" in narrow
    assert "smollm2" not in narrow
    assert "no room for base" in narrow
    assert max(map(len, narrow.splitlines())) <= 40
    wide = printed(width=80, spare=("base",))
    assert "smollm2-135m-instruct" in wide
    assert "no room" not in wide


def test_a_column_stays_where_every_word_just_fits() -> None:
    needed = len("chitchat-1a2b3c4d") + len("smollm2-135m-instruct") + len("versions") + 3 * 3 + 1
    assert "smollm2-135m-instruct" in printed(width=needed, spare=("base",))
    assert "smollm2" not in printed(width=needed - 1, spare=("base",))


def test_a_column_of_many_words_makes_room_for_one_that_has_no_place_to_break() -> None:
    text = io.StringIO()
    rows = [["smollm2-135m-instruct", "a reason of many words that goes on for a line and more"]]
    print_table("Versions", ["base", "reason"], rows, on=Console(file=text, width=50))
    assert "smollm2-135m-instruct" in text.getvalue()
    assert "no room" not in text.getvalue()


def test_what_cannot_be_spared_is_broken_and_not_left_out() -> None:
    folded = printed(width=36)
    assert "no room" not in folded
    assert all(column in folded for column in ("owner", "base"))
