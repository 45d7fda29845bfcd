"""Which transcripts are kept from training: decided by transcript, so that no conversation is on both sides."""

from __future__ import annotations

from collections.abc import Sequence

from kit.canonical import sha256_json
from transcripts.transcript import Transcript


def split_transcripts(
    transcripts: Sequence[Transcript], *, share: float, seed: int
) -> tuple[list[Transcript], list[Transcript]]:
    """Return (kept for training, held out), each in the given order.

    Transcripts are held out in the order of a digest of `seed` and their id, until `share` of the user's turns is
    reached: at least one, and never all, when there are two. A new transcript moves few others across the split.
    """
    ranked = sorted(transcripts, key=lambda transcript: sha256_json([seed, transcript.id]))
    wanted = share * sum(len(transcript.user_turns) for transcript in transcripts)
    held: set[str] = set()
    turns = 0
    for transcript in ranked[:-1]:
        if turns >= wanted:
            break
        held.add(transcript.id)
        turns += len(transcript.user_turns)
    return (
        [transcript for transcript in transcripts if transcript.id not in held],
        [transcript for transcript in transcripts if transcript.id in held],
    )
