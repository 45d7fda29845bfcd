"""Claude Code's session files: ``~/.claude/projects/<directory>/<session>.jsonl``, one JSON object a line.

A line names its `uuid` and its `parentUuid`: a session is a tree, not a list. Rewinding makes a fork; the path to the
last line is the conversation. Compaction begins a new root, which names what it goes on from (`logicalParentUuid`);
roots that name nothing begin a conversation each. Lines of helpers (`isSidechain`, files under ``subagents/``)
are the assistant talking to itself. Each block of an assistant's message is a line of its own; lines with one
``message.id`` are one message, and lines that repeat a block stutter. The last line of a session that is running may
be half written.

Most lines of type ``user`` were not typed by anybody: results of tools, reminders, commands and their output,
notices, summaries of what was compacted. What was typed is kept: the text of a prompt without what the program put
around it, the arguments of a command, and what was typed while the assistant was working.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from transcripts.conversation import Conversation, Message, Place, optional_time, optional_title, require_dict
from transcripts.formats.base import TranscriptFormat
from transcripts.formats.claude_code_lines import Said, read_line
from transcripts.json_reader import JsonReader
from transcripts.source import Source
from transcripts.tally import Reason
from transcripts.thread import path_to

USER, ASSISTANT = "user", "assistant"
_LINE_BYTES = 100


class ClaudeCode(TranscriptFormat):
    """Session files of the command line program and its editor extensions."""

    name = "claude-code"
    default_user_speakers = frozenset({USER})
    speakers = frozenset({USER, ASSISTANT})
    merges_speakers = True
    holds_pasted = True
    repeats_messages = True
    file_suffixes = (".jsonl",)

    def conversations(self, source: Source) -> Iterator[Conversation]:
        """Yield one conversation for each thread of the session, by its first line.

        What is held is the text that was said and the lines' pointers; results of tools are let go as they are read. A
        session in which more was said than one conversation may hold, or with such a line, is passed over as a whole:
        without some of its lines, nobody knows what the others go on from.
        """
        session = _Session(source)
        for record in JsonReader(source).records(on_unfinished=session.leave_unfinished):
            if not record.beginning:
                session.add(require_dict(record.value, Place(source.name, record.line)), record.line)
            if record.beginning or session.is_too_large:
                refusal = source.transcript_too_large(line=record.line)
                yield Conversation(source=source.name, line=1, messages=(), too_large=refusal)
                return
        yield from session.conversations()


@dataclass(kw_only=True)
class _Node:
    """One line that has a `uuid`."""

    number: int
    line: int
    parent: str | None
    time: datetime | None = None
    said: Said | None = None
    message_id: str = ""
    typed_after: list[Message] = field(default_factory=list)


class _Session:
    """The lines of one file."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._nodes: dict[str, _Node] = {}
        self._dropped: Counter[Reason] = Counter()
        self._title = ""
        self._last: _Node | None = None
        self._steered: set[str] = set()
        self._queued: list[str] = []
        self._blocks: set[tuple[str, str]] = set()
        self._held = 0

    def add(self, value: dict[str, Any], line: int) -> None:
        """Take one line.

        Raises:
            TranscriptUnreadable: naming line and field of what is not of the expected type.
        """
        place = Place(self._source.name, line)
        said = read_line(value, place)
        self._dropped.update(said.dropped)
        self._title = optional_title(said.title) or self._title
        if said.queue:
            self._hold(said.queued)
            self._queue(said, value, place)
        uuid = value.get("uuid")
        if not isinstance(uuid, str) or said.is_helper:
            return
        if said.is_steering:
            self._steered.add(said.text)
        if uuid in self._nodes:
            self._dropped[Reason.REPEATED] += bool(said.text)
            return
        self._hold(said.text, uuid)
        self._nodes[uuid] = self._last = _Node(
            number=len(self._nodes),
            line=line,
            parent=_parent(value),
            time=optional_time(value.get("timestamp"), place / "timestamp") if said.text else None,
            said=said if said.text and self._is_new(said) else None,
            message_id=said.message_id,
        )

    @property
    def is_too_large(self) -> bool:
        """Whether more was said than one conversation may hold."""
        return self._held > self._source.max_transcript_bytes

    def _hold(self, *texts: str) -> None:
        """Count what a line adds to what is held: its texts, and itself."""
        self._held += sum(map(len, texts)) + _LINE_BYTES

    def leave_unfinished(self) -> None:
        """Count a last line that is still being written."""
        self._dropped[Reason.UNFINISHED] += 1

    def conversations(self) -> Iterator[Conversation]:
        """Yield the threads; what the file left out is counted with the first."""
        for node in self._nodes.values():
            node.typed_after = [message for message in node.typed_after if message.text not in self._steered]
        threads = list(self._threads())
        left_out: Counter[Reason] = self._dropped
        for line, nodes in threads:
            yield Conversation(
                source=self._source.name,
                line=line,
                messages=tuple(_messages(nodes)),
                title=self._title,
                dropped=left_out,
            )
            left_out = Counter()
        if not threads:
            yield Conversation(source=self._source.name, line=1, messages=(), dropped=left_out)

    def _is_new(self, said: Said) -> bool:
        """Whether a block of an assistant's message comes for the first time; a user's always does."""
        if not said.message_id:
            return True
        block = (said.message_id, said.text)
        if block in self._blocks:
            self._dropped[Reason.REPEATED] += 1
            return False
        self._blocks.add(block)
        return True

    def _queue(self, said: Said, value: dict[str, Any], place: Place) -> None:
        """Follow what was typed while the assistant worked.

        What is taken out to be the next prompt has a line of its own; what is removed was handed to the assistant
        at its work, and has none in many versions.
        """
        if said.queue == "enqueue":
            self._queued.append(said.queued)
        elif said.queue == "popAll":
            self._queued.clear()
        elif self._queued:
            text = self._queued.pop(0)
            if said.queue == "remove" and text and self._last is not None:
                time = optional_time(value.get("timestamp"), place / "timestamp")
                self._last.typed_after.append(Message(speaker=USER, text=text, time=time))

    def _threads(self) -> Iterator[tuple[int, list[_Node]]]:
        """Yield each tree's path to its last line on which anything was said."""
        roots: dict[str, str] = {}
        last: dict[str, str] = {}
        parents = {uuid: node.parent for uuid, node in self._nodes.items()}
        said: Counter[str] = Counter()
        for uuid, node in self._nodes.items():
            roots[uuid] = root = self._root(uuid, parents, roots)
            if node.said or node.typed_after:
                last[root] = uuid
                said[root] += 1
        for root, leaf in last.items():
            path = path_to(leaf, parents)
            if path is None:
                raise Place(self._source.name, self._nodes[leaf].line, "parentUuid").refuse(
                    "leads in a circle: the line is its own ancestor"
                )
            nodes = self._with_siblings(path)
            self._dropped[Reason.BRANCH] += said[root] - sum(1 for node in nodes if node.said or node.typed_after)
            yield self._nodes[path[0]].line, nodes

    def _root(self, uuid: str, parents: dict[str, str | None], roots: dict[str, str]) -> str:
        """Return the first line above, remembering it for the lines between."""
        between: list[str] = []
        seen: set[str] = set()
        at = uuid
        while at not in roots and at not in seen and (parent := parents[at]) is not None and parent in parents:
            seen.add(at)
            between.append(at)
            at = parent
        root = roots.get(at, at)
        roots.update(dict.fromkeys(between, root))
        return root

    def _with_siblings(self, path: list[str]) -> list[_Node]:
        """Add lines beside the path that belong to a message on it: calls of tools at once make such forks."""
        nodes = [self._nodes[uuid] for uuid in path]
        on_path = set(path)
        ids = {node.message_id for node in nodes if node.message_id}
        beside = [
            node for uuid, node in self._nodes.items() if uuid not in on_path and node.said and node.message_id in ids
        ]
        return sorted([*nodes, *beside], key=lambda node: node.number) if beside else nodes


def _messages(nodes: list[_Node]) -> Iterator[Message]:
    for node in nodes:
        if node.said is not None:
            speaker = ASSISTANT if node.said.message_id or node.said.is_assistant else USER
            yield Message(speaker=speaker, text=node.said.text, time=node.time)
        yield from node.typed_after


def _parent(value: dict[str, Any]) -> str | None:
    for key in ("parentUuid", "logicalParentUuid"):
        if isinstance(parent := value.get(key), str):
            return parent
    return None
