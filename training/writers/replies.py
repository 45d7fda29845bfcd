"""The user's own replies: what they write in answer to somebody, in their own manner."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from training.config import DatasetConfig
from training.examples import Example, Message
from transcripts.transcript import Transcript, Turn

_GO_ON = "…"
_WORD = re.compile(r"\S")
_SENTENCE_END = re.compile(r"[.!?…]+[\"')\]]*\s+|\n+")


def write_replies(transcripts: Sequence[Transcript], *, config: DatasetConfig) -> list[Example]:
    """Return one example for each user turn that follows another speaker's, by transcript and turn.

    The prompt shows up to `context_turns` turns within `max_prompt_characters`, the older ones dropped first; it begins
    with the other speaker. Of a turn just before that is longer than all of them may be, the end is shown. A reply of
    more than `max_completion_characters` is told in parts, each an example that goes on from the part before.
    """
    return [
        Example(kind="reply", prompt=prompt, completion=part, transcript_id=transcript.id, turn_index=index)
        for transcript in transcripts
        for index, turn in enumerate(transcript.turns)
        if turn.role == "user"
        for prompt, part in _parts(turn.text, _context(transcript.turns[:index], config), config)
    ]


def _parts(text: str, prompt: tuple[Message, ...], config: DatasetConfig) -> Iterator[tuple[tuple[Message, ...], str]]:
    """Yield what is said in answer to a prompt, in parts that fit, each with what it answers and two parts before."""
    before = prompt
    for part in _cut(text, config.max_completion_characters) if prompt else ():
        yield prompt, part
        prompt = (*before, Message(role="assistant", content=part), Message(role="user", content=_GO_ON))
        before = prompt[-3:]


def _cut(text: str, characters: int) -> Iterator[str]:
    """Yield a text in parts, each up to the last end of a sentence that fits, else of a word; what fits as it is."""
    start = _next_word(text, 0) if len(text) > characters else 0
    while len(text) - start > characters:
        fits = text[start : start + characters + 1]
        end = max((match.end() for match in _SENTENCE_END.finditer(fits)), default=0)
        if end < characters // 4:  # hardly a sentence
            end = fits.rfind(" ") if fits.rfind(" ") > 0 else characters
        yield fits[:end].rstrip()
        start = _next_word(text, start + end)
    if text[start:].strip():
        yield text[start:]


def _next_word(text: str, start: int) -> int:
    found = _WORD.search(text, start)
    return found.start() if found else len(text)


def _context(before: Sequence[Turn], config: DatasetConfig) -> tuple[Message, ...]:
    """The last turns before a reply that fit, from the other speaker to the other speaker; empty when none does."""
    if not before or before[-1].role != "other":
        return ()
    shown: list[Message] = []
    characters = 0
    for turn in reversed(before[-config.context_turns :]):
        text = turn.text if shown else turn.text[-config.max_prompt_characters :]
        characters += len(text)
        if characters > config.max_prompt_characters:
            break
        shown.insert(0, Message(role="assistant" if turn.role == "user" else "user", content=text))
    while shown and shown[0].role != "user":
        shown = shown[1:]
    return tuple(shown)
