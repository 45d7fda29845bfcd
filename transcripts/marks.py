"""Numbers by which stored transcripts find those that may hold them whole, and those that they may hold.

Law: when one of a user's transcripts holds another (`without_continued` of both returns the one), what the other is
sought by is among the one's marks. The other way round it need not be so: texts tell. The numbers are digests that
nobody else's transcripts have, because the owner is digested, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from transcripts.copies import known_by, repeats_messages
from transcripts.transcript import Transcript, Turn

_MARK_BYTES = 8  # what PostgreSQL's largest integer holds


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What one transcript is found by: `own`, distinct, and the one of them that another must have to hold it."""

    own: list[int]
    sought: int

    @classmethod
    def of(cls, transcript: Transcript, *, tenant: str, user: str) -> Marks:
        """Mark a transcript: how far it goes after each turn, and each message that may stand elsewhere."""
        nothing = blake2b(f"{tenant}\n{user}\n".encode(), digest_size=_MARK_BYTES)
        so_far = nothing.copy()
        own: dict[int, None] = {}
        copies = repeats_messages(transcript)
        end = message = None
        for turn in transcript.turns:
            end = _mark(so_far, turn)
            own[end] = None
            if turn.time is not None:
                message = _mark(nothing, turn)
                own[message] = None
            so_far.update(f"{turn.role}\0{turn.time.isoformat() if turn.time else ''}\0{turn.text}\0".encode())
        # Where messages are copied, a transcript may stand inside another one, which begins otherwise.
        sought = message if copies and message is not None else end
        assert sought is not None, "a transcript has turns"
        return cls(own=list(own), sought=sought)


def _mark(before: blake2b, turn: Turn) -> int:
    """Digest a turn after what came before it; one that has grown by a line is marked as it was."""
    digest = before.copy()
    digest.update(f"{known_by(turn)}\0".encode())
    return int.from_bytes(digest.digest(), "little", signed=True)
