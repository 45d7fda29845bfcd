"""What a remote writer asks: transcripts cut into chunks, and for each chunk one request a form of question.

A plan is a function of transcripts, wording and settings alone, so that a process that takes over builds the same one;
its digest says so. Both requests of a chunk begin with the same text, which the service can cache.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from kit.canonical import sha256_json
from transcripts.transcript import Transcript, Turn

Form = Literal["open", "yes_no"]
FORMS: tuple[Form, ...] = ("open", "yes_no")

_PAIRS_EACH = 25  # longer answers are cut off more often, and one that fails costs more
_MIN_PAIRS_EACH = 2
_WORDS_A_PAIR = 4  # more questions than the user said words are not about the user
_MAX_CHUNK_CHARACTERS = 24_000
_MAX_TURN_CHARACTERS = 4_000  # what is longer was mostly pasted


@dataclass(frozen=True, kw_only=True)
class ShownTurn:
    """One turn as the model sees it; `number` is its name within the chunk."""

    number: int
    transcript_id: str
    turn_index: int
    is_user: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Turns that are asked about together."""

    turns: tuple[ShownTurn, ...]

    @property
    def user_words(self) -> int:
        """How many words of it are the user's."""
        return sum(len(turn.text.split()) for turn in self.turns if turn.is_user)

    def to_text(self) -> str:
        """Return the turns as JSON lines: what somebody typed can never pass for another turn."""
        return "\n".join(
            json.dumps(
                {"turn": turn.number, "speaker": "person" if turn.is_user else "other", "text": turn.text},
                ensure_ascii=False,
            )
            for turn in self.turns
        )


@dataclass(frozen=True, kw_only=True)
class Item:
    """One request: which chunk, which form, how many pairs. `id` is unique among all plans."""

    id: str
    chunk: Chunk
    form: Form
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All requests about one user's transcripts."""

    digest: str
    items: tuple[Item, ...]

    @cached_property
    def by_id(self) -> dict[str, Item]:
        """Every item by its id."""
        return {item.id: item for item in self.items}

    def owns(self, item_id: str) -> bool:
        """Say whether an id is one of this plan's, even in an unknown batch."""
        return item_id in self.by_id


def make_plan(
    transcripts: Sequence[Transcript], *, ids: Sequence[str] | None = None, pairs: int, wording: str, seed: int
) -> Plan:
    """Return the plan for at most `pairs` pairs, fewer where the user said little.

    `wording` names everything else that decides what is asked. `ids` are the transcripts' names where their own do
    not count any more, because they were redacted; they go into the examples.
    """
    named = list(zip(ids or [transcript.id for transcript in transcripts], transcripts, strict=True))
    words = sum(len(turn.text.split()) for transcript in transcripts for turn in transcript.user_turns)
    pairs = min(pairs, words // _WORDS_A_PAIR)
    chunks = _chunks(named, count=max(1, math.ceil(pairs / (len(FORMS) * _PAIRS_EACH))), words=words)
    digest = sha256_json([wording, seed, pairs, [[name, transcript.id] for name, transcript in named]])
    total = sum(chunk.user_words for chunk in chunks)
    items = [
        Item(id=f"{digest[:20]}-{number:04d}-{form}", chunk=chunk, form=form, pairs=count)
        for number, chunk in enumerate(chunks)
        for form in FORMS
        if (count := _share(pairs, chunk.user_words, total)) > 0
    ]
    return Plan(digest=digest, items=tuple(items))


def _share(pairs: int, words: int, total: int) -> int:
    """The pairs of one form for a chunk: in proportion to the user's words in it."""
    return max(_MIN_PAIRS_EACH, round(pairs * words / total / len(FORMS))) if words and pairs else 0


def _chunks(named: Sequence[tuple[str, Transcript]], *, count: int, words: int) -> list[Chunk]:
    """Pack turns in order into about `count` chunks of equally many words of the user's."""
    target = max(1, math.ceil(words / count))
    chunks: list[list[ShownTurn]] = [[]]
    filled = characters = 0
    for name, index, turn in _turns(named):
        size = min(len(turn.text), _MAX_TURN_CHARACTERS)
        if chunks[-1] and (filled >= target or characters + size > _MAX_CHUNK_CHARACTERS):
            chunks.append([])
            filled = characters = 0
        is_user = turn.role == "user"
        text = turn.text[:_MAX_TURN_CHARACTERS]
        chunks[-1].append(
            ShownTurn(number=len(chunks[-1]), transcript_id=name, turn_index=index, is_user=is_user, text=text)
        )
        characters += size
        filled += len(text.split()) if is_user else 0
    return [chunk for turns in chunks if (chunk := Chunk(turns=tuple(turns))).user_words]


def _turns(named: Sequence[tuple[str, Transcript]]) -> Iterator[tuple[str, int, Turn]]:
    for name, transcript in named:
        for index, turn in enumerate(transcript.turns):
            if turn.text.strip():
                yield name, index, turn
