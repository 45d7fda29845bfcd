"""One line of a Claude Code session: what somebody typed or the assistant said in it, and what it is otherwise."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from transcripts.conversation import Place, require_dict, require_list, require_text
from transcripts.tally import Reason

_SUMMARY = "This session is being continued from a previous conversation"
_TITLES = {"summary": "summary", "ai-title": "aiTitle", "custom-title": "customTitle"}
_QUEUE = frozenset({"enqueue", "dequeue", "remove", "popAll"})
_MIN_ARGUMENT_WORDS = 3

# What the program puts around or into what was typed, always with its closing tag.
_INSERTED = (
    *("system-reminder", "ide_opened_file", "ide_selection", "ide_diagnostics", "post-tool-use-hook"),
    *(
        "user-prompt-submit-hook",
        "session-start-hook",
        "available-deferred-tools",
        "new-diagnostics",
        "local-command-caveat",
    ),
)
_INSERT = re.compile(rf"<(?P<tag>{'|'.join(_INSERTED)})(?:\s[^<>]{{0,200}})?>")
# A message that begins with one of these is the program's.
_PROGRAMS = (
    *("<local-command-stdout>", "<local-command-stderr>", "<bash-input>", "<bash-stdout>", "<bash-stderr>"),
    *("<task-notification>", "<teammate-message", "<command-contents>", "<tick>", "<background-task"),
    *("[Request interrupted by user", "Caveat: The messages below were generated", "API Error"),
    *("Stop hook feedback:", "No response requested."),
)
_COMMANDS = ("<command-name>", "<command-message>", "<command-args>")
_ARGUMENTS = re.compile(r"<command-args>(.{0,100000}?)</command-args>", re.DOTALL)
_MEMORY = re.compile(r"<user-memory-input>(.{0,100000}?)</user-memory-input>", re.DOTALL)
_PLACEHOLDER = re.compile(r"\[(?:Image|Pasted text|File)(?: #|: source: )[^\]\n]{0,200}\]")


@dataclass(frozen=True, kw_only=True)
class Said:
    """`text` is what was said, empty for a line in which nobody says anything; `dropped` why.

    `queue` is what happened to the queue of what is typed meanwhile, `queued` the text that joined it; a line
    `is_steering` that brings such a text to the assistant at its work.
    """

    text: str = ""
    is_assistant: bool = False
    is_helper: bool = False
    is_steering: bool = False
    message_id: str = ""
    title: Any = None
    queue: str = ""
    queued: str = ""
    dropped: Counter[Reason] = field(default_factory=Counter)


def read_line(value: dict[str, Any], place: Place) -> Said:
    """Return what a line holds.

    Raises:
        TranscriptUnreadable: naming the field that is not of the expected type.
    """
    kind = value.get("type")
    if not isinstance(kind, str):
        raise (place / "type").refuse("must be a string: every line of a session tells its type")
    if value.get("isSidechain") is True:
        return Said(is_helper=True, dropped=_helper(kind))
    if kind in _TITLES:
        return Said(title=value.get(_TITLES[kind]))
    if kind == "queue-operation":
        return _queue(value, place)
    if kind == "attachment":
        return _attachment(value, place)
    if kind == "assistant":
        return _assistant(value, place)
    return _user(value, place) if kind == "user" else Said()


def typed(text: str) -> tuple[str, Counter[Reason]]:
    """Return what somebody typed of a prompt's text, and what was left out of it."""
    dropped: Counter[Reason] = Counter()
    text, inserts = _without_inserts(text)
    dropped[Reason.HARNESS] += inserts
    head = text.lstrip()
    if head.startswith(_SUMMARY):
        return "", Counter({Reason.SUMMARY: 1})
    if head.startswith(_COMMANDS):
        found = _ARGUMENTS.search(text)
        text = found[1].strip() if found and len(found[1].split()) >= _MIN_ARGUMENT_WORDS else ""
        dropped[Reason.HARNESS] += 1
    elif head.startswith("<user-memory-input>"):
        text = "\n".join(match[1].strip() for match in _MEMORY.finditer(text))
    elif head.startswith(_PROGRAMS):
        return "", dropped + Counter({Reason.HARNESS: 1})
    text, placeholders = _PLACEHOLDER.subn("", text)
    dropped[Reason.MEDIA] += placeholders
    if not text.strip() and not +dropped:
        dropped[Reason.EMPTY] += 1
    return text.strip(), dropped


def _without_inserts(text: str) -> tuple[str, int]:
    """Cut out what the program inserted, from each opening tag to its closing one (or to the end)."""
    kept: list[str] = []
    at = inserts = 0
    while (found := _INSERT.search(text, at)) is not None:
        kept.append(text[at : found.start()])
        closing = f"</{found['tag']}>"
        end = text.find(closing, found.end())
        at = len(text) if end < 0 else end + len(closing)
        inserts += 1
    return "".join((*kept, text[at:])), inserts


def _user(value: dict[str, Any], place: Place) -> Said:
    if (reason := _not_typed(value)) is not None:
        return Said(dropped=Counter({reason: 1}))
    text, dropped = _content(value, place)
    if not text or dropped[Reason.TOOL]:
        return Said(dropped=dropped or Counter({Reason.EMPTY: 1}))
    text, more = typed(text)
    return Said(text=text, dropped=dropped + more)


def _not_typed(value: dict[str, Any]) -> Reason | None:
    if value.get("isCompactSummary") is True or value.get("isVisibleInTranscriptOnly") is True:
        return Reason.SUMMARY
    if "toolUseResult" in value or isinstance(value.get("sourceToolUseID"), str):
        return Reason.TOOL
    origin = value.get("origin")
    if isinstance(origin, dict) and origin.get("kind") not in {None, "human"}:
        return Reason.HARNESS
    return Reason.HARNESS if value.get("isMeta") is True else None


def _assistant(value: dict[str, Any], place: Place) -> Said:
    message = require_dict(value.get("message"), place / "message")
    if value.get("isApiErrorMessage") is True or message.get("model") == "<synthetic>":
        return Said(dropped=Counter({Reason.HARNESS: 1}))
    text, dropped = _content(value, place)
    found = message.get("id")
    return Said(text=text, is_assistant=True, message_id=found if isinstance(found, str) else "", dropped=dropped)


_BLOCKS = {
    **{"tool_use": Reason.TOOL, "tool_result": Reason.TOOL, "server_tool_use": Reason.TOOL},
    **{"thinking": Reason.THINKING, "redacted_thinking": Reason.THINKING},
}


def _content(value: dict[str, Any], place: Place) -> tuple[str, Counter[Reason]]:
    """Return a message's text, and its blocks without any."""
    here = place / "message" / "content"
    content = require_dict(value.get("message"), place / "message").get("content")
    dropped: Counter[Reason] = Counter()
    if isinstance(content, str):
        return require_text(content, here), dropped
    texts: list[str] = []
    for index, one in enumerate(require_list(content, here)):
        block = require_dict(one, here / index)
        if block.get("type") == "text":
            texts.append(require_text(block.get("text"), here / index / "text"))
        else:
            dropped[_BLOCKS.get(str(block.get("type")), Reason.MEDIA)] += 1
    return "\n".join(text for text in texts if text), dropped


def _queue(value: dict[str, Any], place: Place) -> Said:
    operation = value.get("operation")
    if operation not in _QUEUE:
        return Said()
    content = value.get("content")
    if operation != "enqueue" or not isinstance(content, str):
        return Said(queue=operation)
    text, _ = typed(require_text(content, place / "content"))
    return Said(queue=operation, queued=text)


def _attachment(value: dict[str, Any], place: Place) -> Said:
    """Return what was typed meanwhile and handed to the assistant between two of its steps."""
    attachment = value.get("attachment")
    if not isinstance(attachment, dict) or attachment.get("type") != "queued_command":
        return Said()
    prompt = attachment.get("prompt")
    if attachment.get("commandMode") not in {None, "prompt"} or not isinstance(prompt, str):
        return Said(dropped=Counter({Reason.HARNESS: 1}))
    text, dropped = typed(require_text(prompt, place / "attachment" / "prompt"))
    return Said(text=text, is_steering=True, dropped=dropped)


def _helper(kind: str) -> Counter[Reason]:
    return Counter({Reason.SUBAGENT: 1}) if kind in {"user", "assistant"} else Counter()
