"""`lorry import`: what a user said, from files of several formats."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.prompt import IntPrompt

from kit.words import counted
from lorry.output import err, out, print_json, print_table, run, say
from transcripts.formats import FORMATS, require_format
from transcripts.importer import CHITCHAT, detect_format, list_speakers
from transcripts.tally import WHAT, Reason, Tally

if TYPE_CHECKING:
    from lorry.stages.importing import Imported

_NUMERIC = frozenset({"number"})


def import_(
    user: Annotated[str, typer.Argument(help="user_id to store the transcripts under")],
    path: Annotated[
        str, typer.Argument(help="file, zip of an export, directory (~/.claude/projects), or the word chitchat")
    ],
    format: Annotated[
        str | None, typer.Option(help=f"one of {', '.join(FORMATS)}; detected from the content when omitted")
    ] = None,
    user_speaker: Annotated[
        str | None, typer.Option(help="the user's name in the file; asked for when the format does not tell")
    ] = None,
    keep_pasted: Annotated[
        bool, typer.Option("--keep-pasted", help="take pasted code, quotes and logs for the user's own words")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the summary as JSON")] = False,
) -> None:
    """Import a user's transcripts. Importing the same conversation again changes nothing.

    Told at the end: what was kept, what was left out, and why. What each format keeps is in docs/transcripts.md.

    A file may hold several conversations; training needs several, because it keeps whole ones aside to measure on.
    In plain text (`Name: what they said`) a line of `---` begins the next.
    """
    from lorry.pipeline import run_import

    speaker = user_speaker or run(ask_speaker(path, format=format), as_json=as_json)
    importing = run_import(user, path=path, format=format, user_speaker=speaker, keep_pasted=keep_pasted)
    imported = run(importing, as_json=as_json)
    if as_json:
        print_json(imported.to_json())
        return
    _show_tally(imported.tally)
    out.print(_told(user, imported), highlight=False, markup=False, soft_wrap=True)


def tell_imported(user: str, imported: Imported) -> None:
    """Tell people, on standard error, what an import on the way to something else kept and left out."""
    _show_tally(imported.tally)
    say(_told(user, imported))


def _told(user: str, imported: Imported) -> str:
    summary = imported.summary
    return (
        f"{counted(imported.added.new, 'new transcript')}, {imported.added.known} known already,"
        f" {imported.tally.dropped[Reason.NO_USER]} without a turn of the user's. {user} now has"
        f" {counted(summary.transcripts, 'transcript')}, {counted(summary.user_turns, 'own turn')},"
        f" {counted(summary.user_words, 'own word')}."
    )


def _show_tally(tally: Tally) -> None:
    """Show what was kept and what was left out, on standard error: the result is what comes after it."""
    formats = ", ".join(f"{name} ({counted(files, 'file')})" for name, files in sorted(tally.formats.items()))
    rows = [
        ["kept", str(tally.conversations), "conversations", formats],
        ["kept", str(tally.user_messages), "own turns", f"of {tally.messages} in these conversations"],
    ]
    for reason in Reason:
        if number := tally.dropped[reason]:
            unit, meaning = WHAT[reason]
            rows.append([reason.value, str(number), unit, meaning])
    print_table("what was kept, and what was left out", ["", "number", "of", "what"], rows, numeric=_NUMERIC, on=err)
    for which in tally.too_large:
        err.print(f"left out: {which}", highlight=False, markup=False, soft_wrap=True)


async def ask_speaker(path: str, *, format: str | None) -> str | None:
    """Ask who the user is, where the format does not tell and somebody is there to answer; None otherwise."""
    if not sys.stdin.isatty() or path == CHITCHAT:
        return None
    known = require_format(format or detect_format(path))
    if known.default_user_speakers:
        return None  # without reading an export of a gigabyte to its end
    speakers = list_speakers(Path(path), format=format)
    if not speakers or any(speaker.is_user for speaker in speakers):
        return None
    err.print("Who is the user?")
    for number, speaker in enumerate(speakers, 1):
        err.print(f"  {number}  {speaker.name} ({counted(speaker.turns, 'turn')})", markup=False, highlight=False)
    numbers = [str(number) for number in range(1, len(speakers) + 1)]
    chosen = IntPrompt.ask("Number", choices=numbers, console=err)
    return speakers[chosen - 1].name
