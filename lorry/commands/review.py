"""`lorry review`: look at a user's training pairs, edit and drop them, before or after a training."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.prompt import Prompt
from rich.text import Text

from kit.errors import LorryError
from kit.words import counted
from lorry.errors import FileUnreadable
from lorry.output import err, out, print_json, print_table, report_error, run, say, shown

if TYPE_CHECKING:
    from lorry.context import Context
    from lorry.stages.reviewing import Edit, Reviewed
    from training.review import Pair

_SHOWN_CHARACTERS = 100
_HELP = "k leave as it is · d drop · e edit · r restore · b back · q end here"


class KindName(StrEnum):
    """The kinds of pairs, as the command line takes them."""

    STATEMENT = "statement"
    NEGATIVE = "negative"
    REPLY = "reply"


class StatusName(StrEnum):
    """What may have become of a pair, as the command line takes it."""

    KEPT = "kept"
    EDITED = "edited"
    DROPPED = "dropped"
    HELD_OUT = "held_out"


def review(
    user: Annotated[str, typer.Argument(help="user_id")],
    job: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="what this job, which waits for its review, will be trained on"),
    ] = None,
    show: Annotated[str | None, typer.Option(metavar="ID", help="show one pair whole")] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="ID", help="do not train on this pair; repeatable")] = None,
    restore: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="take the decision about this pair back; repeatable")
    ] = None,
    edit: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=FILE", help="put FILE in its place: JSON with question or completion, or the answer"),
    ] = None,
    kind: Annotated[KindName | None, typer.Option(help="only pairs of this kind")] = None,
    status: Annotated[StatusName | None, typer.Option(help="only pairs in this state")] = None,
    search: Annotated[str | None, typer.Option(help="only pairs that hold this text, in any case")] = None,
    interactive: Annotated[
        bool | None, typer.Option("--interactive/--list", help="one pair after the other; so on a terminal")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Review the pairs that a user's adapter is trained on. Decisions hold in every later build and training.

    An id may be cut to its first characters. Without decisions, the pairs are listed; at a terminal they are asked
    about one by one.
    """
    deciding = bool(drop or restore or edit or show)
    asks = interactive if interactive is not None else sys.stdin.isatty() and not deciding and not as_json
    choose = _filter(kind, status, search)
    run(
        _review(
            user,
            job=job,
            show=show,
            drop=drop or [],
            restore=restore or [],
            edit=edit or [],
            choose=choose,
            asks=asks,
            as_json=as_json,
        ),
        as_json=as_json,
    )


async def _review(
    user: str,
    *,
    job: str | None,
    show: str | None,
    drop: Sequence[str],
    restore: Sequence[str],
    edit: Sequence[str],
    choose: Callable[[Pair], bool],
    asks: bool,
    as_json: bool,
) -> None:
    from lorry.context import open_context
    from lorry.stages.reviewing import decide, open_job_review, open_review
    from training.review import find_pair

    edits = _read_edits(edit)
    async with open_context() as context:
        reviewed = await open_job_review(context, user=user, job_id=job) if job else open_review(context, user=user)
        if drop or restore or edits:
            reviewed = await decide(context, reviewed, drop=drop, restore=restore, edits=edits)
        elif show is None and asks:
            await _ask_about_all(context, reviewed, choose)
            return
    if show is not None:
        pair = find_pair(reviewed.pairs, show)
        print_json(pair.to_json()) if as_json else _show(pair)
    elif as_json:
        print_json(_describe(reviewed, choose))
    elif drop or restore or edits:
        out.print(_summary(reviewed), highlight=False, markup=False, soft_wrap=True)
    else:
        _list(reviewed, choose)


async def _ask_about_all(context: Context, reviewed: Reviewed, choose: Callable[[Pair], bool]) -> None:
    """Go through the pairs; decisions take effect together, at the end, or else can be thought over."""
    from lorry.stages.reviewing import decide
    from training.errors import CurationInvalid, DatasetTooSmall

    pairs = [pair for pair in reviewed.pairs if choose(pair)]
    decided: dict[str, tuple[str, Edit | None]] = {}
    while True:
        try:
            _go_through(pairs, decided)
        except EOFError:  # the terminal is gone; what was decided is not
            pass
        if not decided:
            say("nothing was decided")
            return
        try:
            reviewed = await decide(
                context,
                reviewed,
                drop=[name for name, (what, _) in decided.items() if what == "drop"],
                restore=[name for name, (what, _) in decided.items() if what == "restore"],
                edits={name: each for name, (_, each) in decided.items() if each is not None},
            )
        except (CurationInvalid, DatasetTooSmall) as exc:
            if not _wants_to_go_back(exc):
                raise
        else:
            out.print(_summary(reviewed), highlight=False, markup=False, soft_wrap=True)
            return


def _go_through(pairs: Sequence[Pair], decided: dict[str, tuple[str, Edit | None]]) -> None:
    """Ask about one pair after the other and note what is decided, until the last one or `q`."""
    number = 0
    while number < len(pairs):
        pair = pairs[number]
        what = f" · decided: {decided[pair.id][0]}" if pair.id in decided else ""
        err.print(f"\n[bold]{number + 1} of {len(pairs)}[/bold]{what}")
        _show(pair)
        answer = Prompt.ask(_HELP, choices=list("kderbq"), default="k", show_choices=False, console=err)
        if answer == "q":
            return
        if answer == "e" and not _ask_for_edit(pair, decided):
            continue
        number = max(0, number - 1) if answer == "b" else number + 1
        if answer == "d":
            decided[pair.id] = ("drop", None)
        elif answer == "r":
            decided.pop(pair.id, None)
            if pair.decision is not None:
                decided[pair.id] = ("restore", None)


def _ask_for_edit(pair: Pair, decided: dict[str, tuple[str, Edit | None]]) -> bool:
    """Ask for a question and an answer; say why they cannot be taken, before anything else is asked."""
    from lorry.stages.reviewing import Edit, require_editable
    from training.errors import CurationInvalid

    change = Edit(question=_ask_for("question", pair.question), completion=_ask_for("answer", pair.example.completion))
    if change == Edit():
        return True
    try:
        require_editable(pair, change)
    except CurationInvalid as exc:
        report_error(exc, as_json=False)
        return False
    decided[pair.id] = ("edit", change)
    return True


def _ask_for(name: str, before: str) -> str | None:
    """Return what is put in place of a text, None for nothing."""
    given = Prompt.ask(f"{name} (Enter: as it is)", default=before, show_default=False, console=err)
    return None if given == before else given


def _wants_to_go_back(exc: LorryError) -> bool:
    """Tell why decisions cannot be kept; whether a person wants to think them over."""
    report_error(exc, as_json=False)
    try:
        answer = Prompt.ask("b back to the pairs · q give up what was decided", choices=["b", "q"], console=err)
    except EOFError:
        return False
    return answer == "b"


def _filter(kind: str | None, status: str | None, search: str | None) -> Callable[[Pair], bool]:
    def choose(pair: Pair) -> bool:
        text = f"{pair.question}\n{pair.example.completion}".lower()
        return (
            (kind is None or pair.example.kind == kind)
            and (status is None or pair.status == status)
            and (search is None or search.lower() in text)
        )

    return choose


def _read_edits(given: Sequence[str]) -> dict[str, Edit]:
    edits: dict[str, Edit] = {}
    for name, change in map(_read_edit, given):
        if name in edits:
            raise FileUnreadable(f"--edit {name}: is given twice", field="--edit")
        edits[name] = change
    return edits


def _read_edit(given: str) -> tuple[str, Edit]:
    """Read ``ID=FILE``; a hyphen is standard input."""
    from lorry.stages.reviewing import Edit

    name, separator, file = given.partition("=")
    if not separator or not name or not file:
        raise FileUnreadable(f"--edit {given}: must be ID=FILE", field="--edit")
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise FileUnreadable(f"{file} cannot be read: {reason}", field=file) from exc
    if not text.lstrip().startswith("{"):
        return name, Edit(completion=text.strip())
    return name, _parse_edit(text, file)


def _parse_edit(text: str, file: str) -> Edit:
    from lorry.stages.reviewing import Edit

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise FileUnreadable(f"{file} is not JSON: {exc}", field=file) from exc
    texts = {key: value.get(key) for key in ("question", "completion")}
    unknown = sorted(set(value) - set(texts))
    texts_only = all(each is None or isinstance(each, str) for each in texts.values())
    if unknown or not texts_only or all(each is None for each in texts.values()):
        raise FileUnreadable(f"{file} must hold question or completion, both texts", field=file)
    return Edit(**texts)


def _describe(reviewed: Reviewed, choose: Callable[[Pair], bool]) -> dict[str, Any]:
    return {
        "user": reviewed.user,
        "digest": reviewed.dataset.digest,
        "directory": str(reviewed.directory),
        **reviewed.dataset.counts,
        "pairs": [pair.to_json() for pair in reviewed.pairs if choose(pair)],
        "quality": reviewed.report.to_json() if reviewed.report else None,
    }


def _summary(reviewed: Reviewed) -> str:
    counts = {name: sum(pair.status == name for pair in reviewed.pairs) for name in ("dropped", "edited")}
    return (
        f"dataset of {reviewed.user}: {counted(len(reviewed.dataset.train), 'example')} to train on,"
        f" {counts['edited']} edited, {counts['dropped']} dropped, {len(reviewed.dataset.held_out)} held out,"
        f" in {reviewed.directory}"
    )


def _list(reviewed: Reviewed, choose: Callable[[Pair], bool]) -> None:
    rows = [_row(pair) for pair in reviewed.pairs if choose(pair)]
    columns = ["id", "status", "kind", "question", "answer"]
    print_table(f"Pairs of {reviewed.user}", columns, rows, whole=frozenset({"id"}))
    out.print(_summary(reviewed), highlight=False, markup=False, soft_wrap=True)
    if reviewed.report is not None and reviewed.report.warnings:
        found = f"{counted(reviewed.report.warnings, 'finding')} to look at in {reviewed.directory / 'quality.md'}"
        out.print(found, highlight=False, markup=False, soft_wrap=True)


def _row(pair: Pair) -> list[str]:
    status = pair.status.replace("_", " ")
    return [pair.id[:8], status, pair.example.kind, _cut(pair.question), _cut(pair.example.completion)]


def _cut(text: str) -> str:
    """Return a text for a table's cell, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 1]}…"


def _show(pair: Pair) -> None:
    """Print one pair whole."""
    facts = [pair.id, pair.status.replace("_", " "), pair.example.kind, pair.example.topic or ""]
    if pair.base_loss is not None:
        facts.append(f"{pair.base_loss:.2f} nats a token under the base")
    out.print(Text("  ".join(fact for fact in facts if fact), style="dim"))
    for message in pair.example.prompt:
        speaker = "them" if message.role == "user" else "user"
        out.print(Text.assemble((f"{speaker}: ", "bold"), shown(message.content)))
    out.print(Text.assemble(("answer: ", "bold green"), shown(pair.example.completion)))
    if pair.status == "edited":
        out.print(Text.assemble(("as written: ", "dim"), shown(pair.written.completion)))
