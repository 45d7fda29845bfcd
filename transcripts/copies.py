"""Messages that several transcripts of a user hold: branches and resumed sessions begin with copies of earlier ones.

An import keeps each message once, but knows of no other import: what one kept without its copies, because the
original lay beside it, the next one keeps whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transcripts.formats import FORMATS
from transcripts.seen import Seen
from transcripts.transcript import Transcript, Turn

Place = tuple[int, int]
"""Which transcript, and which of its turns."""


def copied(transcripts: Sequence[Transcript]) -> list[dict[int, list[Place]]]:
    """Return for each transcript, by turn, where the messages stand that are there more than once; in order.

    Its own places are among them. Only messages of formats that copy them and whose times are known count: otherwise
    the same may be said twice. They are known by speaker, time and first line, whatever lines were joined to that.
    """
    seen = Seen()  # most messages are there once: only the others are listed
    repeated = {key for transcript in transcripts for _, key in _keys(transcript) if not seen.add(key)}
    places: dict[str, list[Place]] = {key: [] for key in repeated}
    found: list[dict[int, list[Place]]] = []
    for index, transcript in enumerate(transcripts):
        own = {turn: places[key] for turn, key in _keys(transcript) if key in repeated}
        for turn, listed in own.items():
            listed.append((index, turn))
        found.append(own)
    return found


def conversations(transcripts: Sequence[Transcript]) -> list[list[Transcript]]:
    """Return the transcripts in groups such that no two groups hold the same message; all in the given order."""
    first = list(range(len(transcripts)))  # of each transcript, an earlier one that it belongs to, or itself
    for index, own in enumerate(copied(transcripts)):
        for places in own.values():
            one, other = sorted((_root(first, index), _root(first, places[0][0])))
            first[other] = one
    groups: dict[int, list[Transcript]] = {}
    for index, transcript in enumerate(transcripts):
        groups.setdefault(_root(first, index), []).append(transcript)
    return list(groups.values())


def _root(first: list[int], index: int) -> int:
    while first[index] != index:
        first[index] = first[first[index]]
        index = first[index]
    return index


def repeats_messages(transcript: Transcript) -> bool:
    """Whether the transcript's format copies messages from one conversation to another."""
    format = FORMATS.get(transcript.source_format)
    return format is not None and format.repeats_messages


def known_by(turn: Turn) -> str:
    """Return what a message is known by where it was copied or has grown: speaker, time and first line.

    Without its time it is known by all that it says.
    """
    if turn.time is None:
        return f"{turn.role}\0\0{turn.text}"
    line, _, _ = turn.text.partition("\n")
    return f"{turn.role}\0{turn.time.isoformat()}\0{line}"


def _keys(transcript: Transcript) -> Iterator[tuple[int, str]]:
    if repeats_messages(transcript):
        for index, turn in enumerate(transcript.turns):
            if turn.time is not None:
                yield index, known_by(turn)
