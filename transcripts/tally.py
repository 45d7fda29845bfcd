"""What an import kept and what it left out, counted by a fixed set of reasons."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Why something was left out. The set is fixed: scripts may rely on it."""

    TOOL = "tool-traffic"
    SYSTEM = "system-prompt"
    HARNESS = "written-by-program"
    SUMMARY = "compaction-summary"
    THINKING = "thinking"
    SUBAGENT = "subagent"
    BRANCH = "abandoned-branch"
    REPEATED = "repeated"
    HIDDEN = "hidden"
    ATTACHMENT = "attachment"
    MEDIA = "media"
    PASTED = "pasted"
    EMPTY = "empty"
    NO_USER = "no-user-turn"
    UNFINISHED = "unfinished"
    TOO_LARGE = "too-large"
    NOT_TRANSCRIPT = "not-a-transcript"


WHAT = {
    Reason.TOOL: ("messages", "calls of tools and what they returned"),
    Reason.SYSTEM: ("messages", "system and developer prompts"),
    Reason.HARNESS: ("messages", "reminders, notices, commands and their output: nobody typed them"),
    Reason.SUMMARY: ("messages", "summaries that a program made of the conversation so far"),
    Reason.THINKING: ("messages", "the assistant's reasoning"),
    Reason.SUBAGENT: ("messages", "conversations of the assistant with its own helpers"),
    Reason.BRANCH: ("messages", "edited or regenerated away: not on the path that was last shown"),
    Reason.REPEATED: ("messages", "the same message again, in this file or another one"),
    Reason.HIDDEN: ("messages", "never shown in the conversation"),
    Reason.ATTACHMENT: ("attachments", "files that were attached, with the text taken from them"),
    Reason.MEDIA: ("parts", "images, sound and other parts without text"),
    Reason.PASTED: ("passages", "code, quotes and logs in the user's messages: not their words"),
    Reason.EMPTY: ("messages", "without text"),
    Reason.NO_USER: ("conversations", "in which the user says nothing"),
    Reason.UNFINISHED: ("lines", "last lines of sessions that are still being written: the next import takes them"),
    Reason.TOO_LARGE: ("conversations", "larger than the limit of one conversation"),
    Reason.NOT_TRANSCRIPT: ("files", "in a directory or archive that are no transcripts"),
}
"""For every reason, what is counted and what it is."""


@dataclass(kw_only=True)
class Tally:
    """Filled while transcripts are read; complete when the reading has ended.

    `conversations` and `messages` count what was kept; `user_messages` those of the user among them. `formats`
    counts files by format. `too_large` says of each conversation counted so which one it is.
    """

    files: int = 0
    conversations: int = 0
    messages: int = 0
    user_messages: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    dropped: Counter[Reason] = field(default_factory=Counter)
    too_large: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, with every reason there is."""
        return {
            "files": self.files,
            "formats": dict(sorted(self.formats.items())),
            "kept": {
                "conversations": self.conversations,
                "messages": self.messages,
                "user_messages": self.user_messages,
            },
            "dropped": {reason.value: self.dropped[reason] for reason in Reason},
            "too_large": list(self.too_large),
        }
