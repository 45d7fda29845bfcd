"""Conversations that went on after they were imported: the export of next month holds them again, longer.

Each state is a transcript of its own, because a transcript's id is the digest of its turns. Whoever learns from
transcripts wants the last one only: the same words twice count twice, and may stand on both sides of a split.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from transcripts.transcript import Transcript


def without_continued(transcripts: Iterable[Transcript]) -> list[Transcript]:
    """Return the transcripts, in order, without those that another of them goes on from; nothing that was said is lost.

    One goes on from another when it begins with all of its turns: same roles, texts and times. The last of them may
    have grown by a line, where its time is known: some formats join what one speaker says in a row.
    """
    given = list(transcripts)
    # No text holds NUL, so one transcript's key begins with another's and a NUL exactly when its turns do.
    keys = {_key(transcript): transcript for transcript in given}
    ordered = sorted(keys)
    continued = {keys[key].id for key, after in pairwise(ordered) if _goes_on(keys[key], key, after)}
    return [transcript for transcript in given if transcript.id not in continued]


def _goes_on(transcript: Transcript, key: str, after: str) -> bool:
    """Whether `after`, the next key in order, is that of a longer state: what begins alike is sorted side by side."""
    if not after.startswith(key):
        return False
    grown = after[len(key)]
    return grown == "\0" or (grown == "\n" and transcript.turns[-1].time is not None)


def _key(transcript: Transcript) -> str:
    return "\0".join(
        f"{turn.role}\0{turn.time.isoformat() if turn.time else ''}\0{turn.text}" for turn in transcript.turns
    )
