"""How the command speaks: tables and progress for people, JSON for scripts, exit codes that mean something.

`EXIT_MEANINGS` says which; every command prints them under its help.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import typer
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from kit.errors import LorryError, problem_code
from kit.reasons import place_name
from lorry.errors import NotConfirmed
from training.errors import WriterTooExpensive
from training.jobs.errors import QuotaExhausted

T = TypeVar("T")
out = Console()
err = Console(stderr=True)
_silent: ContextVar[bool] = ContextVar("silent", default=False)
_LINE_SECONDS = 20.0
_BORDER = 3  # a blank on either side of a cell, and a line
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_NOT_FOUND = 404
EXIT_MEANINGS = {
    0: "done",
    1: "something broke",
    2: "bad input",
    3: "not found",
    4: "conflict, or not ready yet",
    5: "a service did not answer",
    6: "a quota or spending limit is used up",
    130: "interrupted",
}
EXIT_CODES = f"Exit codes: {'; '.join(f'{code} {meaning}' for code, meaning in EXIT_MEANINGS.items())}."
_EXIT_CODES = {400: 2, 401: 2, 403: 2, 404: 3, 409: 4, 412: 4, 413: 2, 415: 2, 422: 2, 429: 5, 502: 5, 503: 5, 504: 5}
_LIMITS = (QuotaExhausted, WriterTooExpensive)


def exit_code(exc: LorryError) -> int:
    """Return the exit code of a command that was refused so, see `EXIT_MEANINGS`."""
    return 6 if isinstance(exc, _LIMITS) else _EXIT_CODES.get(exc.status_code, 1)


def run(main: Coroutine[Any, Any, T], *, as_json: bool = False) -> T:
    """Run one command's coroutine; turn a refusal into a message and an exit code.

    With `as_json`, nothing is told on the way: standard error holds one JSON object when the command fails.
    """
    before = _silent.set(as_json)
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        err.print("interrupted")
        raise typer.Exit(130) from None
    except LorryError as exc:
        report_error(exc, as_json=as_json)
        raise typer.Exit(exit_code(exc)) from exc
    finally:
        _silent.reset(before)


def report_error(exc: LorryError, *, as_json: bool) -> None:
    """Print one refusal to standard error."""
    if as_json:
        body = {"error": problem_code(type(exc)), "detail": exc.message, "field": exc.field, **exc.details}
        err.file.write(to_json(body) + "\n")
        return
    whole = not err.is_terminal  # nobody finds a path in a log that is broken at column 80
    err.print(Text.assemble(("error: ", "bold red"), shown(exc.message)), soft_wrap=whole)
    field = shown(place_name(exc.field or ""))
    if field and exc.status_code != _NOT_FOUND and field not in shown(exc.message):
        err.print(f"  at: {field}", markup=False, highlight=False, soft_wrap=whole)


def say(*objects: Any) -> None:
    """Tell people what happens, on standard error; scripts that asked for JSON hear nothing."""
    if not _silent.get():
        err.print(*objects, highlight=False, soft_wrap=not err.is_terminal)  # a line of a log stays one line


def shown(text: str) -> str:
    """Return what somebody else wrote so that a terminal only shows it.

    Control characters, which could move the cursor, retitle the window or fill the clipboard, and those that turn the
    direction of writing stand as their escapes; line ends and tabs stay.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def command() -> str:
    """Return how this command was called, so that what is advised can be typed: ``lorry`` or its path."""
    called = Path(sys.argv[0])
    return "lorry" if shutil.which("lorry") or called.name != "lorry" else str(called)


def shown_time(moment: datetime | None, *, seconds: bool = False) -> str:
    """Return a time as tables show it, to the minute (or second), in UTC; a dash for none."""
    form = "%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M"
    return moment.astimezone(UTC).strftime(form) if moment else "—"


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal; refuse where nobody can answer.

    Raises:
        NotConfirmed: unless the answer is yes.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmed("nobody can be asked here: pass --yes")
    if not typer.confirm(question, err=True):
        raise NotConfirmed


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """Return JSON; times are ISO 8601, and what JSON does not know is its text."""
    return json.dumps(value, indent=indent, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_json(value: Any) -> None:
    """Print a JSON document to standard output, and nothing else."""
    out.file.write(to_json(value) + "\n")


class JsonList:
    """A JSON list on standard output that is printed as its members come; use it as a context manager."""

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._members = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if not self._silent and error is None:
            out.file.write("\n]\n" if self._members else "[]\n")

    def add(self, member: Any) -> None:
        """Print one member."""
        if self._silent:
            return
        out.file.write("[\n" if not self._members else ",\n")
        out.file.write(to_json(member, indent=None))
        self._members += 1


def print_table(
    title: str,
    columns: list[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    numeric: frozenset[str] = frozenset(),
    whole: frozenset[str] = frozenset(),
    spare: Sequence[str] = (),
    on: Console = out,
) -> None:
    """Print rows under a title; columns named in `numeric` are right-aligned, those in `whole` never broken.

    A text is shown as it is, brackets and all: somebody else wrote it. What is to be coloured is a `Text`. Where words
    would be broken for want of room, columns of `spare` are left out and named below; the last is worth most.
    `on` is standard output for a command's result, `err` for what it shows on the way: a script reads the former.
    """
    if on is err and _silent.get():
        return
    cells = {column: [_cell(row[place]) for row in rows] for place, column in enumerate(columns)}
    kept, fit = _fitting(cells, whole=whole, spare=spare, width=on.width)
    whole |= {column for column in kept if fit and not any(" " in each for each in [column, *map(str, cells[column])])}
    left_out = ", ".join(column for column in columns if column not in kept)
    caption = f"no room for {left_out}: a wider terminal or --json shows it" if left_out else None
    name = Text(shown(title), "table.title")
    table = Table(title=name, title_justify="left", header_style="bold", caption=caption, caption_justify="left")
    for column in kept:
        justify: JustifyMethod = "right" if column in numeric else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
    for row in zip(*(cells[column] for column in kept), strict=True):
        table.add_row(*row)
    on.print(table)


def _fitting(
    cells: dict[str, list[Text]], *, whole: frozenset[str], spare: Sequence[str], width: int
) -> tuple[list[str], bool]:
    """Return the columns that stay, and whether those that are not `spare` fit with every word unbroken."""
    least = {
        column: max(cell_len(word) for cell in [Text(column), *below] for word in _words(cell, whole=column in whole))
        for column, below in cells.items()
    }
    left = width - 1 - sum(least[column] + _BORDER for column in cells if column not in spare)
    found = set(cells) - set(spare)
    for column in reversed(spare):  # what is worth most gets room first
        if least[column] + _BORDER <= left:
            found.add(column)
            left -= least[column] + _BORDER
    return [column for column in cells if column in found], left >= 0


def _words(cell: Text, *, whole: bool) -> list[str]:
    return ([cell.plain] if whole else cell.plain.split()) or [""]


def _cell(value: str | Text) -> Text:
    return Text(shown(value)) if isinstance(value, str) else value


@contextmanager
def progress() -> Iterator[Progress | None]:
    """Show progress on standard error while the block runs: bars at a terminal, else a line now and then."""
    if _silent.get() or not err.is_terminal:
        yield None
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=err,
    ) as bars:
        yield bars


class Bar:
    """One bar: call it with (done, total, note). Its clock starts at once, or with the first call if it `waits`."""

    def __init__(
        self, bars: Progress | None, description: str, *, total: int | None = None, waits: bool = False
    ) -> None:
        self._bars = bars
        self._description = description
        self._total, self._done = total, 0
        self._started = self._told = time.monotonic()
        self._task = bars.add_task(description, total=total, note="", start=not waits) if bars else None
        if bars is None and not waits:
            say(Text(f"{description} …"))
        self._waits = waits

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total`; a total of 0 is one that is not known."""
        self._begin()
        self._done, self._total = done, total or None
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=self._total, note=note)
        elif time.monotonic() - self._told > _LINE_SECONDS:
            self._told = time.monotonic()
            self._tell(f"{done} of {total}" if total else str(done), note)

    @property
    def was_called(self) -> bool:
        """Say whether anything was done since the bar was made."""
        return self._done > 0

    def finish(self, note: str = "", *, total: int | None = None) -> None:
        """Fill the bar: with `total` where nothing had to be done, because it was done before."""
        self._begin()
        total = self._total or self._done or total or 1
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=total, total=total, note=note)
        else:
            self._tell(f"done in {time.monotonic() - self._started:.0f} s", note)

    def _begin(self) -> None:
        if not self._waits:
            return
        self._waits = False
        self._started = self._told = time.monotonic()
        if self._bars is not None and self._task is not None:
            self._bars.start_task(self._task)
        else:
            say(Text(f"{self._description} …"))

    def _tell(self, state: str, note: str) -> None:
        say(Text(f"{self._description}: {state}{', ' if note else ''}{note}"))
