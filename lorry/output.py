"""How the command speaks: tables and progress for people, JSON for scripts, exit codes that mean something.

`EXIT_CODES` says which; every group of commands prints it under its help.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from kit.errors import LorryError
from kit.problems import problem_code

T = TypeVar("T")
out = Console()
err = Console(stderr=True)
EXIT_CODES = (
    "Exit codes: 0 done; 1 something broke; 2 bad input; 3 not found; 4 conflict, or not ready yet; "
    "5 a service did not answer; 130 interrupted."
)
_EXIT_CODES = {400: 2, 401: 2, 403: 2, 404: 3, 409: 4, 412: 4, 413: 2, 415: 2, 422: 2, 429: 5, 502: 5, 503: 5, 504: 5}


def run(main: Coroutine[Any, Any, T], *, as_json: bool = False) -> T:
    """Run one command's coroutine; turn a refusal into a message and an exit code."""
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        err.print("interrupted")
        raise typer.Exit(130) from None
    except LorryError as exc:
        report_error(exc, as_json=as_json)
        raise typer.Exit(_EXIT_CODES.get(exc.status_code, 1)) from exc


def report_error(exc: LorryError, *, as_json: bool) -> None:
    """Print one refusal to standard error."""
    if as_json:
        body = {"error": problem_code(type(exc)), "detail": exc.message, "field": exc.field, **exc.details}
        err.print_json(json.dumps(body, default=str))
        return
    err.print("error:", style="bold red", end=" ")
    err.print(exc.message, markup=False, highlight=False)
    if exc.field and exc.field not in exc.message:
        err.print(f"  at: {exc.field}", markup=False, highlight=False)


def print_json(value: Any) -> None:
    """Print a JSON document to standard output, and nothing else."""
    out.file.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


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
        out.file.write(json.dumps(member, ensure_ascii=False, default=str))
        self._members += 1


def print_table(
    title: str, columns: list[str], rows: list[list[str]], *, numeric: frozenset[str] = frozenset(), on: Console = out
) -> None:
    """Print rows under a title; columns named in `numeric` are right-aligned.

    `on` is standard output for a command's result, `err` for what it shows on the way: a script reads the former.
    """
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    on.print(table)


Advance = Callable[[int, int, str], None]


@contextmanager
def progress() -> Iterator[Progress]:
    """Show progress bars on standard error while the block runs."""
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
    """One bar: call it with (done, total, note)."""

    def __init__(self, bars: Progress, description: str, *, total: int | None = None) -> None:
        self._bars = bars
        self._task = bars.add_task(description, total=total, note="")

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total`; a total of 0 is one that is not known."""
        self._bars.update(self._task, completed=done, total=total or None, note=note)

    def finish(self, note: str = "") -> None:
        """Fill the bar."""
        task = next(task for task in self._bars.tasks if task.id == self._task)
        total = task.total or 1
        self._bars.update(self._task, completed=total, total=total, note=note)
