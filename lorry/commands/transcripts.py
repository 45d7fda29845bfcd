"""`lorry import`: what a user said, from files of several formats."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.prompt import IntPrompt

from lorry.output import err, out, print_json, run
from transcripts.formats import FORMATS
from transcripts.importer import CHITCHAT, list_speakers


def import_(
    user: Annotated[str, typer.Argument(help="user_id to store the transcripts under")],
    path: Annotated[str, typer.Argument(help="file, directory of files, or the word chitchat")],
    format: Annotated[
        str | None, typer.Option(help=f"one of {', '.join(FORMATS)}; detected from the content when omitted")
    ] = None,
    user_speaker: Annotated[
        str | None, typer.Option(help="the user's name in the file; asked for when the format does not tell")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the summary as JSON")] = False,
) -> None:
    """Import a user's transcripts. Importing the same conversation again changes nothing."""
    from lorry.pipeline import run_import

    speaker = user_speaker or run(ask_speaker(path, format=format), as_json=as_json)
    imported = run(run_import(user, path=path, format=format, user_speaker=speaker), as_json=as_json)
    if as_json:
        print_json({**vars(imported.added), "skipped": imported.skipped, **vars(imported.summary)})
        return
    summary = imported.summary
    out.print(
        f"{imported.added.new} new transcripts, {imported.added.known} known already,"
        f" {imported.skipped} without a turn of the user's. {user} now has {summary.transcripts} transcripts,"
        f" {summary.user_turns} own turns, {summary.user_words} own words.",
        highlight=False,
    )


async def ask_speaker(path: str, *, format: str | None) -> str | None:
    """Ask who the user is, where the format does not tell and somebody is there to answer; None otherwise."""
    if not sys.stdin.isatty() or path == CHITCHAT:
        return None
    speakers = list_speakers(Path(path), format=format)
    if not speakers or any(speaker.is_user for speaker in speakers):
        return None
    err.print("Who is the user?")
    for number, speaker in enumerate(speakers, 1):
        err.print(f"  {number}  {speaker.name} ({speaker.turns} turns)", markup=False, highlight=False)
    numbers = [str(number) for number in range(1, len(speakers) + 1)]
    chosen = IntPrompt.ask("Number", choices=numbers, console=err)
    return speakers[chosen - 1].name
