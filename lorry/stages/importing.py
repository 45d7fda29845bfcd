"""Stage 1: files → stored transcripts of one user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorry.context import Context
from transcripts.importer import read_transcripts
from transcripts.repository import Summary
from transcripts.store import Added, TranscriptStore
from transcripts.tally import Reason, Tally
from transcripts.transcript import Transcript

OnProgress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What one import did, what it left out and why, and what the user has now."""

    added: Added
    tally: Tally
    summary: Summary

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which `lorry import --json` prints."""
        skipped = self.tally.dropped[Reason.NO_USER]
        return {**vars(self.added), "skipped": skipped, **vars(self.summary), **self.tally.to_json()}


async def import_transcripts(
    context: Context,
    *,
    user: str,
    path: Path | str,
    format: str | None = None,
    user_speaker: str | None = None,
    keep_pasted: bool = False,
    on_progress: OnProgress | None = None,
) -> Imported:
    """Store every transcript in `path` for `user`, all or none; what is stored already is left as it is.

    `keep_pasted` takes pasted code, quotes and logs for the user's own words.

    Raises:
        TranscriptError: naming file, line or field and the reason; nothing is stored then.
    """
    tally = Tally()
    found = read_transcripts(path, format=format, user_speaker=user_speaker, keep_pasted=keep_pasted, tally=tally)
    async with context.database.transaction() as session:
        store = TranscriptStore(session)
        added = await store.add(context.settings.tenant, user, _counted(found, on_progress))
        summary = await store.summary(context.settings.tenant, user)
    return Imported(added=added, tally=tally, summary=summary)


def _counted(transcripts: Iterator[Transcript], on_progress: OnProgress | None) -> Iterator[Transcript]:
    for number, transcript in enumerate(transcripts, 1):
        if on_progress is not None:
            on_progress(number)
        yield transcript
