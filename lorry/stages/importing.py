"""Stage 1: files → stored transcripts of one user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lorry.context import Context
from transcripts.importer import Skipped, read_transcripts
from transcripts.repository import Summary
from transcripts.store import Added, TranscriptStore
from transcripts.transcript import Transcript

OnProgress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What one import did, and what the user has now."""

    added: Added
    skipped: int
    summary: Summary


async def import_transcripts(
    context: Context,
    *,
    user: str,
    path: Path | str,
    format: str | None = None,
    user_speaker: str | None = None,
    on_progress: OnProgress | None = None,
) -> Imported:
    """Store every transcript in `path` for `user`, all or none; what is stored already is left as it is.

    Raises:
        TranscriptError: naming file, line or field and the reason; nothing is stored then.
    """
    skipped: list[Skipped] = []
    found = read_transcripts(path, format=format, user_speaker=user_speaker, on_skipped=skipped.append)
    async with context.database.transaction() as session:
        store = TranscriptStore(session)
        added = await store.add(context.settings.tenant, user, _counted(found, on_progress))
        summary = await store.summary(context.settings.tenant, user)
    return Imported(added=added, skipped=len(skipped), summary=summary)


def _counted(transcripts: Iterator[Transcript], on_progress: OnProgress | None) -> Iterator[Transcript]:
    for number, transcript in enumerate(transcripts, 1):
        if on_progress is not None:
            on_progress(number)
        yield transcript
