"""Conversations that went on after they were imported: the export of next month holds them again, longer.

Each state is a transcript of its own, because a transcript's id is the digest of its turns. So is what an import kept
of a resumed session, whose beginning it had read in another file. Whoever learns from transcripts wants the longest
one only: the same words twice count twice, and may stand on both sides of a split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

from transcripts.copies import copied
from transcripts.transcript import Transcript, Turn

# A message may stand in each of 100,000 transcripts. The longest hold the others, where any does.
_LOOKED_AT = 32


def without_continued(transcripts: Iterable[Transcript]) -> list[Transcript]:
    """Return the transcripts, in order, without those that another of them holds whole; nothing that was said is lost.

    One holds another when it begins with all of its turns: same roles, texts and times. The last of them may have
    grown by a line, where its time is known: some formats join what one speaker says in a row. Of formats that copy
    messages, it may also hold them further on, in a row and with their times; there lines may have been joined
    before the first of them, too.
    """
    given = list(transcripts)
    held = {*_continued(given), *_stretches(given)}
    return [transcript for transcript in given if transcript.id not in held]


def _continued(transcripts: list[Transcript]) -> Iterator[str]:
    """Yield the ids of those that another one begins with."""
    # No text holds NUL, so one transcript's key begins with another's and a NUL exactly when its turns do.
    keys = {_key(transcript): transcript for transcript in transcripts}
    for key, after in pairwise(sorted(keys)):
        if _goes_on(keys[key], key, after):
            yield keys[key].id


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


def _stretches(transcripts: list[Transcript]) -> Iterator[str]:
    """Yield the ids of those whose turns stand in another one in a row."""
    distinct = {transcript.id: transcript for transcript in transcripts}.values()
    longest_first = sorted(distinct, key=lambda transcript: (-len(transcript.turns), transcript.id))
    for index, (part, own) in enumerate(zip(longest_first, copied(longest_first), strict=True)):
        # The first turn may stand elsewhere as the end of another one only: the later ones tell.
        later = [turn for turn, said in enumerate(part.turns) if turn and said.time is not None]
        if not own or not own.keys() >= set(later):
            continue
        turn = min(later or own, key=lambda turn: len(own[turn]))
        if any(
            other != index and _stands_in(longest_first[other], part, start=at - turn)
            for other, at in islice(own[turn], _LOOKED_AT)
        ):
            yield part.id


def _stands_in(whole: Transcript, part: Transcript, *, start: int) -> bool:
    last = len(part.turns) - 1
    return 0 <= start < len(whole.turns) - last and all(
        _holds(whole.turns[start + index], turn, is_first=index == 0, is_last=index == last)
        for index, turn in enumerate(part.turns)
    )


def _holds(turn: Turn, part: Turn, *, is_first: bool, is_last: bool) -> bool:
    if turn == part:
        return True
    if turn.role != part.role or turn.time is None or part.time is None:
        return False
    if is_last and turn.time == part.time and turn.text.startswith(f"{part.text}\n"):
        return True
    return is_first and turn.time <= part.time and turn.text.endswith(f"\n{part.text}")
