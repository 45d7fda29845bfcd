"""Which transcripts are kept from training: decided by conversation, so that none is on both sides."""

from __future__ import annotations

from collections.abc import Sequence

from kit.canonical import sha256_json
from transcripts.copies import conversations
from transcripts.transcript import Transcript

_MOST = 2  # shares, that are held out


def split_transcripts(
    transcripts: Sequence[Transcript], *, share: float, seed: int
) -> tuple[list[Transcript], list[Transcript]]:
    """Return (kept for training, held out), each in the given order.

    Transcripts that hold copies of the same messages are one conversation and stay together. Conversations are held
    out in the order of a digest of `seed` and their least id, until `share` of the user's turns is reached: at least
    one, and never all, when there are two. One that would make it more than twice the share is passed over, since
    whoever has few long ones needs them for training. A new transcript moves few others across the split.
    """
    ranked = sorted(
        conversations(transcripts), key=lambda together: sha256_json([seed, min(each.id for each in together)])
    )
    wanted = share * sum(len(transcript.user_turns) for transcript in transcripts)
    held: set[str] = set()
    turns = 0
    fitting = [together for together in ranked if _turns(together) <= _MOST * wanted] or sorted(ranked, key=_turns)[:1]
    for together in fitting[: len(ranked) - 1]:
        if turns >= wanted:
            break
        if turns + _turns(together) <= _MOST * wanted or not held:
            held.update(transcript.id for transcript in together)
            turns += _turns(together)
    return (
        [transcript for transcript in transcripts if transcript.id not in held],
        [transcript for transcript in transcripts if transcript.id in held],
    )


def _turns(together: Sequence[Transcript]) -> int:
    return sum(len(transcript.user_turns) for transcript in together)
