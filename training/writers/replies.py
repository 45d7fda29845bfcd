"""The user's own replies: what they write in answer to somebody, in their own manner."""

from __future__ import annotations

from collections.abc import Sequence

from training.config import DatasetConfig
from training.examples import Example, Message
from transcripts.transcript import Transcript, Turn


def write_replies(transcripts: Sequence[Transcript], *, config: DatasetConfig) -> list[Example]:
    """Return one example for each user turn that follows another speaker's, by transcript and turn.

    The prompt shows up to `context_turns` turns within `max_prompt_characters`, the older ones dropped first; it begins
    with the other speaker. Replies longer than `max_completion_characters` are left out rather than cut.
    """
    examples = []
    for transcript in transcripts:
        for index, turn in enumerate(transcript.turns):
            if turn.role != "user" or not 0 < len(turn.text) <= config.max_completion_characters:
                continue
            prompt = _context(transcript.turns[:index], config)
            if prompt:
                examples.append(
                    Example(
                        kind="reply",
                        prompt=prompt,
                        completion=turn.text,
                        transcript_id=transcript.id,
                        turn_index=index,
                    )
                )
    return examples


def _context(before: Sequence[Turn], config: DatasetConfig) -> tuple[Message, ...]:
    """The last turns before a reply that fit, from the other speaker to the other speaker; empty when none does."""
    if not before or before[-1].role != "other":
        return ()
    shown: list[Message] = []
    characters = 0
    for turn in reversed(before[-config.context_turns :]):
        characters += len(turn.text)
        if characters > config.max_prompt_characters:
            break
        shown.insert(0, Message(role="assistant" if turn.role == "user" else "user", content=turn.text))
    while shown and shown[0].role != "user":
        shown = shown[1:]
    return tuple(shown)
