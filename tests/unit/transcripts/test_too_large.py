"""A conversation that is larger than the limit is left out by name, and the rest of its file is read."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcripts.errors import TranscriptTooLarge, TranscriptTruncated, TranscriptUnreadable
from transcripts.importer import detect_format, list_speakers, read_transcripts
from transcripts.json_reader import JsonReader
from transcripts.source import Source
from transcripts.tally import Reason, Tally

LIMIT = 5000
LONG = 'I said "that\\this" [and {more. ' * 4000  # more than one piece of a file, with what ends a value inside


def chatgpt(text: str, title: str) -> dict[str, Any]:
    message = {"author": {"role": "user"}, "content": {"content_type": "text", "parts": [text]}}
    return {"title": title, "mapping": {"a": {"parent": None, "message": message}}, "current_node": "a"}


def claude_ai(text: str, title: str) -> dict[str, Any]:
    return {"uuid": title, "name": title, "chat_messages": [{"sender": "human", "text": text, "content": []}]}


def messages(text: str, title: str) -> dict[str, Any]:
    return {"title": title, "messages": [{"role": "user", "content": text}]}


def sharegpt(text: str, title: str) -> dict[str, Any]:
    return {"title": title, "conversations": [{"from": "user", "value": text}]}


def as_array(make: Callable[[str, str], dict[str, Any]], texts: list[str]) -> str:
    return json.dumps([make(text, f"Talk “{number}”") for number, text in enumerate(texts)])


def as_lines(make: Callable[[str, str], dict[str, Any]], texts: list[str]) -> str:
    return "".join(json.dumps(make(text, f"Talk “{number}”")) + "\n" for number, text in enumerate(texts))


def as_chitchat(texts: list[str]) -> str:
    burst = [[{"sender": "user", "text": "", "timestamp": 0}]]
    talks = {f"t{number}": {"prompt": f"Talk “{number}”", "messages": burst} for number in range(len(texts))}
    for (name, talk), text in zip(talks.items(), texts, strict=True):
        talks[name] = {**talk, "messages": [[{"sender": "user", "text": text, "timestamp": 0}]]}
    return json.dumps(talks)


def as_text(texts: list[str]) -> str:
    return "\n---\n".join("user: " + text.replace("[", "\n[") for text in texts)


FILES: dict[str, Callable[[list[str]], str]] = {
    "chatgpt": lambda texts: as_array(chatgpt, texts),
    "claude-ai": lambda texts: as_array(claude_ai, texts),
    "openai-messages": lambda texts: as_lines(messages, texts),
    "sharegpt": lambda texts: as_array(sharegpt, texts),
    "sharegpt a line": lambda texts: as_lines(sharegpt, texts),
    "chitchat": as_chitchat,
    "plain-text": as_text,
    "plain-text in one line": lambda texts: "\n---\n".join(f"user: {text}" for text in texts),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_others_of_a_file_are_kept(tmp_path: Path, name: str, place: int) -> None:
    texts = ["One.", "Two."]
    texts.insert(place, LONG)
    path = tmp_path / "file"
    path.write_text(FILES[name](texts))
    tally = Tally()
    kept = list(read_transcripts(path, user_speaker="user", max_transcript_bytes=LIMIT, tally=tally))
    assert [turn.text for transcript in kept for turn in transcript.turns] == ["One.", "Two."]
    assert (tally.conversations, +tally.dropped) == (2, {Reason.TOO_LARGE: 1})
    (which,) = tally.to_json()["too_large"]
    assert which.startswith(f"{path}, line ")
    assert f"larger than the limit of {LIMIT} bytes" in which
    if "plain" not in name:
        assert f"Talk “{place}”" in which
    assert "that" not in which


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_nothing_else_is_refused_for_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file"
    path.write_text(FILES[name]([LONG]))
    with pytest.raises(TranscriptTooLarge, match="one conversation is larger"):
        list(read_transcripts(path, format=name.split()[0], user_speaker="user", max_transcript_bytes=LIMIT))


def test_a_session_that_is_too_large_is_left_out_of_a_directory(tmp_path: Path) -> None:
    def write(name: str, *texts: str) -> None:
        lines = [
            {"type": "user", "uuid": f"{name}{number}", "sessionId": name, "message": {"content": text}}
            for number, text in enumerate(texts)
        ]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))

    write("a.jsonl", "First.")
    write("b.jsonl", "Hi.", *[f"Again {number}." for number in range(100)])
    write("c.jsonl", "Hi.", LONG, "And so on.")
    write("d.jsonl", "Last.")
    tally = Tally()
    kept = list(read_transcripts(tmp_path, max_transcript_bytes=LIMIT, tally=tally))
    assert [turn.text for transcript in kept for turn in transcript.turns] == ["First.", "Last."]
    assert tally.dropped[Reason.TOO_LARGE] == 2
    assert [re.findall(r"(\w)\.jsonl, line (\d+)", each) for each in tally.too_large] == [[("b", "43")], [("c", "2")]]
    with pytest.raises(TranscriptTooLarge, match="line 2"):
        list(read_transcripts(tmp_path / "c.jsonl", max_transcript_bytes=LIMIT))


def test_a_text_that_is_too_large_is_left_out_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"Ada: {LONG}")
    (tmp_path / "b.txt").write_text("Ada: Hello.")
    (kept,) = read_transcripts(tmp_path, user_speaker="Ada", max_transcript_bytes=LIMIT)
    assert kept.turns[0].text == "Hello."


def test_who_speaks_and_in_which_format_is_told_by_what_can_be_held(tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    path.write_text(as_array(claude_ai, ["word " * (4 << 20), "One."]))
    assert detect_format(path) == "claude-ai"
    assert [(speaker.name, speaker.turns) for speaker in list_speakers(path)] == [("human", 1)]
    path.write_text(as_array(claude_ai, ["word " * (4 << 20)]))
    with pytest.raises(TranscriptTooLarge):
        detect_format(path)


class Trickle(io.BytesIO):
    """A stream that never gives more than a few bytes at once."""

    few = 3

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self.few)


def reader(text: str, *, few: int = 3) -> JsonReader:
    stream = Trickle(text.encode())
    stream.few = few
    return JsonReader(Source(name="file", stream=stream, max_transcript_bytes=20))


VALUES = st.recursive(
    st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
).filter(lambda value: not isinstance(value, str) or "\0" not in value)


@given(values=st.lists(VALUES, min_size=1, max_size=5), few=st.integers(1, 9), ascii_only=st.booleans())
def test_a_value_that_is_too_large_is_passed_over_to_its_end(values: list[Any], few: int, ascii_only: bool) -> None:
    texts = [json.dumps(value, ensure_ascii=ascii_only) for value in values]
    held = [value if len(text) <= 20 else None for value, text in zip(values, texts, strict=True)]
    members = [f"{json.dumps(str(number))}: {text}" for number, text in enumerate(texts)]
    elements = list(reader(f"[{', '.join(texts)}]", few=few).records())
    lines = list(reader("\n".join(['""', *texts]), few=few).records())[1:]
    named = list(reader(f"{{{', '.join(members)}}}", few=few).items())
    for found in (elements, lines, named):
        assert [record.value for record in found] == held
        for record, text in zip(found, texts, strict=True):
            assert record.beginning[:20] == (text[:20] if len(text) > 20 else "")
    assert [record.line for record in lines] == list(range(2, len(texts) + 2))
    assert [record.key for record in named] == [str(number) for number in range(len(texts))]


@pytest.mark.parametrize(
    ("text", "fault", "line"),
    [
        ('{"a": 1}\n{"a": "' + "b" * 40, TranscriptTruncated, 2),
        ('{"a": 1}\n{"a": "' + "b" * 40 + "\\", TranscriptTruncated, 2),
        ('{"a": 1}\n[' + "[1], \n" * 40, TranscriptTruncated, 2),
        ('{"a": 1}\n{"a": "' + "b" * 40 + '\n{"a": 1}\n', TranscriptUnreadable, 2),
    ],
    ids=["inside a string", "after a backslash", "inside an array", "a string that does not end on its line"],
)
def test_what_is_broken_behind_the_limit_is_refused(text: str, fault: type[Exception], line: int) -> None:
    with pytest.raises(fault, match=f"line {line}"):
        list(reader(text).records())
