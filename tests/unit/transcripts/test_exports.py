"""The exports of Claude.ai and ChatGPT, as files and as archives, and archives that mean harm."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transcripts.errors import (
    TranscriptEmpty,
    TranscriptRefused,
    TranscriptTooLarge,
    TranscriptUnreadable,
    UnknownSpeaker,
)
from transcripts.importer import detect_format, read_transcripts
from transcripts.tally import Tally
from transcripts.transcript import Transcript

Value = dict[str, Any]


def write(directory: Path, value: Any, name: str = "conversations.json") -> Path:
    path = directory / name
    path.write_text(json.dumps(value))
    return path


def archive(directory: Path, members: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = directory / "export.zip"
    with zipfile.ZipFile(path, "w", method) as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    return path


def said(transcript: Transcript) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in transcript.turns]


def read(path: Path, **options: Any) -> tuple[list[list[tuple[str, str]]], dict[str, int]]:
    tally = Tally()
    found = [said(one) for one in read_transcripts(path, tally=tally, **options)]
    return found, {reason.value: count for reason, count in tally.dropped.items() if count}


def claude(*messages: Value, **extra: Any) -> Value:
    return {"uuid": "c", "name": "Bees", "created_at": "2026-01-01T00:00:00Z", **extra, "chat_messages": list(messages)}


def by(sender: str, text: str = "", /, **extra: Any) -> Value:
    value = {"uuid": f"{sender}-{text}", "sender": sender, "text": text, "created_at": "2026-01-02T03:04:05.678901Z"}
    return {
        **value,
        "content": [{"type": "text", "text": text}] if text else [],
        "attachments": [],
        "files": [],
        **extra,
    }


def test_claude_ai_takes_the_blocks_where_they_have_text_and_the_text_elsewhere(tmp_path: Path) -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "Twelve.", "citations": []},
        {"type": "tool_use", "name": "x"},
        {"type": "text", "text": "Or so."},
    ]
    value = [
        claude(
            by("human", "How many bees?"),
            by("assistant", "This block is not supported on your current device yet.", content=blocks),
            by("human", "Thanks!", content=[]),
            by("assistant", "", content=[]),
        ),
        claude(name=""),
        claude(by("assistant", "Hello?")),
    ]
    path = write(tmp_path, value)
    assert detect_format(path) == "claude-ai"
    (transcript,) = read_transcripts(path)
    assert said(transcript) == [("user", "How many bees?"), ("other", "Twelve.\nOr so."), ("user", "Thanks!")]
    assert transcript.title == "Bees"
    assert transcript.started_at == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert read(path)[1] == {"thinking": 1, "tool-traffic": 1, "empty": 1, "no-user-turn": 2}


def test_what_was_attached_is_not_what_the_user_said(tmp_path: Path) -> None:
    attached = {"file_name": "a.txt", "extracted_content": "CONFIDENTIAL"}
    value = [claude(by("human", "Sum it up.", attachments=[attached], files=[{"file_name": "b.png"}]))]
    assert read(write(tmp_path, value)) == ([[("user", "Sum it up.")]], {"attachment": 2})


def test_claude_ai_follows_the_path_to_the_last_message_where_messages_name_their_parents(tmp_path: Path) -> None:
    root = "00000000-0000-4000-8000-000000000000"
    messages = [
        by("human", "a", uuid="1", parent_message_uuid=root),
        by("assistant", "b", uuid="2", parent_message_uuid="1"),
        by("human", "old", uuid="3", parent_message_uuid="2"),
        by("human", "new", uuid="4", parent_message_uuid="2"),
    ]
    assert read(write(tmp_path, [claude(*messages)])) == (
        [[("user", "a"), ("other", "b"), ("user", "new")]],
        {"abandoned-branch": 1},
    )
    chosen = claude(*messages, current_leaf_message_uuid="3")
    assert read(write(tmp_path, [chosen]))[0] == [[("user", "a"), ("other", "b"), ("user", "old")]]
    messages[0]["parent_message_uuid"] = "4"
    with pytest.raises(TranscriptUnreadable, match="circle"):
        read(write(tmp_path, [claude(*messages)]))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (7, "[1] must be an object, not a number"),
        ({"uuid": "x", "name": "n"}, "[1].chat_messages must be an array, not null"),
        (claude(by("human", "x", sender=None)), "[1].chat_messages[0].sender must be a string, not null"),
        (claude(by("human", "x", created_at="never")), "[1].chat_messages[0].created_at is not a time"),
        (claude(by("human", "x", content="x")), "[1].chat_messages[0].content must be an array, not a string"),
        (claude(by("human", "x", content=[{"type": "text", "text": "\ud800"}])), "content[0].text holds half of a"),
        (claude(by("human", "a\0b")), "[1].chat_messages[0].content[0].text holds a NUL"),
        (claude(by("human", "x", attachments=3)), "[1].chat_messages[0].attachments must be an array"),
    ],
)
def test_a_wrong_type_in_claude_ai_is_named_by_record_and_path(tmp_path: Path, bad: Any, reason: str) -> None:
    path = write(tmp_path, [claude(by("human", "x")), bad])
    with pytest.raises(TranscriptUnreadable) as caught:
        read(path, format="claude-ai")
    assert reason in caught.value.message
    assert str(path) in caught.value.message


def node(id: str, parent: str | None, role: str = "user", *parts: Any, **extra: Any) -> tuple[str, Value]:
    message = {
        "id": id,
        "author": {"role": role, "name": None, "metadata": {}},
        "create_time": 1714550400.5,
        "content": {"content_type": "text", "parts": list(parts)},
        "weight": 1.0,
        "metadata": {},
        "recipient": "all",
    }
    return id, {"id": id, "parent": parent, "children": [], "message": {**message, **extra} if role else None}


def chatgpt(*nodes: tuple[str, Value], current: str | None = None, **extra: Any) -> Value:
    return {"title": "Bees", "create_time": 1714550000, "mapping": dict(nodes), "current_node": current, **extra}


def test_chatgpt_walks_from_the_current_node_to_the_root(tmp_path: Path) -> None:
    value = chatgpt(
        node("root", None, ""),
        node("sys", "root", "system", ""),
        node("u1", "sys", "user", "How many bees?"),
        node("stale", "u1", "assistant", "None."),
        node("a1", "u1", "assistant", "Twelve."),
        node("u2", "a1", "user", "Sure?"),
        node("edited", "a1", "user", "Really?"),
        current="u2",
    )
    path = write(tmp_path, [value])
    assert detect_format(path) == "chatgpt"
    (transcript,) = read_transcripts(path)
    assert said(transcript) == [("user", "How many bees?"), ("other", "Twelve."), ("user", "Sure?")]
    assert transcript.started_at == datetime(2024, 5, 1, 8, 0, 0, 500000, tzinfo=UTC)
    assert read(path)[1] == {"abandoned-branch": 2, "system-prompt": 1}


@pytest.mark.parametrize("current", [None, "nobody", 3])
def test_without_a_current_node_the_last_leaf_counts(tmp_path: Path, current: Any) -> None:
    value = chatgpt(node("a", None, "user", "One."), node("b", "a", "user", "Two."), node("c", "a", "user", "Three."))
    found, _ = read(write(tmp_path, [{**value, "current_node": current}]))
    assert found == [[("user", "One."), ("user", "Three.")]]


NOT_SAID: dict[str, tuple[str, Value]] = {
    "hidden": ("hidden", {"metadata": {"is_visually_hidden_from_conversation": True}}),
    "weight 0": ("hidden", {"weight": 0}),
    "to a tool": ("tool-traffic", {"recipient": "python"}),
    "code": ("tool-traffic", {"content": {"content_type": "code", "text": "x = 1"}}),
    "output": ("tool-traffic", {"content": {"content_type": "execution_output", "text": "1"}}),
    "thoughts": ("thinking", {"content": {"content_type": "thoughts", "thoughts": []}}),
    "recap": ("thinking", {"content": {"content_type": "reasoning_recap", "content": "5 s"}}),
    "a tool": ("tool-traffic", {"author": {"role": "tool", "name": "browser"}}),
    "browsing": ("tool-traffic", {"content": {"content_type": "tether_quote", "text": "x"}}),
}


@pytest.mark.parametrize(("reason", "extra"), NOT_SAID.values(), ids=NOT_SAID.keys())
def test_what_was_not_said_in_the_conversation_is_left_out(tmp_path: Path, reason: str, extra: Value) -> None:
    value = chatgpt(node("a", None, "user", "One."), node("b", "a", "assistant", "secret", **extra), current="b")
    assert read(write(tmp_path, [value])) == ([[("user", "One.")]], {reason: 1})


def test_parts_without_text_are_left_out_and_spoken_ones_kept(tmp_path: Path) -> None:
    parts = [
        {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"},
        "What bird is this?",
        {"content_type": "audio_transcription", "text": "I hear it often.", "direction": "in"},
        None,
    ]
    content = {"content_type": "multimodal_text", "parts": parts}
    value = chatgpt(node("a", None, "user", content=content), current="a")
    assert read(write(tmp_path, [value])) == ([[("user", "What bird is this?\nI hear it often.")]], {"media": 1})


def instructions(id: str, parent: str | None, *, raw: bool) -> tuple[str, Value]:
    about, how = "I am a beekeeper.", "Be brief."
    content = {
        "content_type": "user_editable_context",
        "user_profile": f"The user provided the following information.\nUser profile:\n```{about}```",
        "user_instructions": f"How they would like you to respond:\n```{how}```",
    }
    data = {"about_user_message": about, "about_model_message": how}
    metadata = {"is_user_system_message": True, "is_visually_hidden_from_conversation": True}
    metadata |= {"user_context_message_data": data} if raw else {}
    return node(id, parent, "user", content=content, metadata=metadata)


@pytest.mark.parametrize("raw", [True, False])
def test_custom_instructions_are_one_account_apart_from_the_conversations(tmp_path: Path, raw: bool) -> None:
    value = [
        chatgpt(instructions("i", None, raw=raw), node("a", "i", "user", f"Talk {number}."), current="a")
        for number in range(3)
    ]
    found = list(read_transcripts(write(tmp_path, value)))
    assert [said(one) for one in found] == [
        [("user", "I am a beekeeper.\nBe brief.")],
        [("user", "Talk 0.")],
        [("user", "Talk 1.")],
        [("user", "Talk 2.")],
    ]
    assert found[0].title == "Custom instructions"
    assert found[0].started_at is None


def test_times_may_be_null_anywhere(tmp_path: Path) -> None:
    timed = node("b", "a", "assistant", "Yes.")
    value = chatgpt(node("a", None, "user", "One.", create_time=None), timed, current="b")
    (transcript,) = read_transcripts(write(tmp_path, [value]))
    assert transcript.turns[0].time is None
    assert transcript.started_at == datetime(2024, 5, 1, 8, 0, 0, 500000, tzinfo=UTC)
    untimed = chatgpt(node("a", None, "user", "One.", create_time=None), current="a", create_time=None, update_time=5)
    (transcript,) = read_transcripts(write(tmp_path, [untimed]))
    assert transcript.started_at == datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)


def test_a_branch_in_a_new_chat_is_not_kept_twice(tmp_path: Path) -> None:
    first, answer = node("a", None, "user", "One."), node("b", "a", "assistant", "Yes.")
    value = [
        chatgpt(first, answer, current="b"),
        chatgpt(first, answer, node("c", "b", "user", "And then?", create_time=1714550500), current="c"),
    ]
    assert read(write(tmp_path, value)) == (
        [[("user", "One."), ("other", "Yes.")], [("user", "And then?")]],
        {"repeated": 2},
    )


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"mapping": []}, "[1].mapping must be an object, not an array"),
        (chatgpt(("a", 3)), "[1].mapping.a must be an object, not a number"),  # type: ignore[arg-type]
        (chatgpt(("a", {"parent": 3, "message": None})), "[1].mapping.a.parent must be a string"),
        (chatgpt(node("a", None, "user", "x", author=None)), "[1].mapping.a.message.author must be an object"),
        (chatgpt(node("a", None, "user", "x", create_time="soon")), "message.create_time is not a time"),
        (chatgpt(node("a", None, "user", 7)), "[1].mapping.a.message.content.parts[0] must be a string"),
        (chatgpt(node("a", None, "user", "\0")), "parts[0] holds a NUL"),
        (chatgpt(node("a", "b", "user", "x"), node("b", "a", "user", "x"), current="a"), "parents in a circle"),
        (chatgpt(node("a", "b", "user", "x"), node("b", "a", "user", "x")), "parents in a circle"),
    ],
)
def test_a_wrong_type_in_chatgpt_is_named_by_record_and_path(tmp_path: Path, bad: Any, reason: str) -> None:
    path = write(tmp_path, [chatgpt(node("a", None, "user", "x"), current="a"), bad])
    with pytest.raises(TranscriptUnreadable) as caught:
        read(path, format="chatgpt")
    assert reason in caught.value.message


def test_an_archive_is_read_like_the_file_in_it(tmp_path: Path) -> None:
    value = [claude(by("human", "How many bees?"), by("assistant", "Twelve."))]
    plain = list(read_transcripts(write(tmp_path, value)))
    members = {
        "data/users.json": b'[{"uuid": "u"}]',
        "data/conversations.json": json.dumps(value).encode(),
        "data/image.png": b"\x89PNG",
    }
    path = archive(tmp_path, members)
    assert detect_format(path) == "claude-ai"
    assert list(read_transcripts(path)) == plain
    assert read(path)[1] == {"not-a-transcript": 2}
    path.rename(tmp_path / "no-suffix")
    assert list(read_transcripts(tmp_path / "no-suffix")) == plain


def test_an_archive_in_shards_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    shards = {
        f"conversations-00{n}.json": json.dumps([chatgpt(node("a", None, "user", f"Talk {n}."), current="a")]).encode()
        for n in (1, 0, 2)
    }
    assert read(archive(tmp_path, shards))[0] == [[("user", f"Talk {n}.")] for n in range(3)]


def test_an_unpacked_export_leaves_what_is_beside_the_conversations(tmp_path: Path) -> None:
    write(tmp_path, [claude(by("human", "How many bees?"))])
    write(tmp_path, [{"uuid": "u"}], "users.json")
    write(tmp_path, [], "memories.json")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0\xff")
    (tmp_path / "chat.html").write_text("<html>")
    archive(tmp_path, {"word/document.xml": b"<xml>", "other.xml": b""}).rename(tmp_path / "letter.docx")
    assert read(tmp_path) == ([[("user", "How many bees?")]], {"not-a-transcript": 5})
    with pytest.raises(TranscriptEmpty):
        read(tmp_path / "letter.docx")


def test_exports_are_found_in_a_directory_of_archives(tmp_path: Path) -> None:
    first = json.dumps([claude(by("human", "How many bees?"))]).encode()
    archive(tmp_path, {"conversations.json": first}).rename(tmp_path / "a.zip")
    second = json.dumps([chatgpt(node("a", None, "user", "And birds?"), current="a")]).encode()
    archive(tmp_path, {"conversations.json": second}).rename(tmp_path / "b.zip")
    assert read(tmp_path)[0] == [[("user", "How many bees?")], [("user", "And birds?")]]


def test_a_fault_inside_an_archive_names_archive_member_and_record(tmp_path: Path) -> None:
    path = archive(tmp_path, {"conversations.json": json.dumps([claude(by("human", "x")), 7]).encode()})
    with pytest.raises(TranscriptUnreadable) as caught:
        read(path)
    assert f"{path}!conversations.json, line 1: [1] must be an object" in caught.value.message


def test_an_archive_without_conversations_says_so(tmp_path: Path) -> None:
    with pytest.raises(TranscriptEmpty, match=r"holds no conversations\.json"):
        read(archive(tmp_path, {"../../conversations.txt": b"x"}))


def test_an_empty_archive_says_so(tmp_path: Path) -> None:
    with pytest.raises(TranscriptEmpty, match=r"holds no conversations\.json"):
        read(archive(tmp_path, {}))


def test_an_archive_with_two_members_of_one_name_is_refused_and_neither_is_lost(tmp_path: Path) -> None:
    data = json.dumps([claude(by("human", "Hi."))]).encode()
    path = archive(tmp_path, {"conversations.json": data, "conversations.jsom": b"[]"})
    path.write_bytes(path.read_bytes().replace(b"jsom", b"json"))
    with pytest.raises(TranscriptUnreadable, match="2 times"):
        read(path)


def test_exports_and_texts_lie_in_one_directory(tmp_path: Path) -> None:
    archive(tmp_path, {"conversations.json": json.dumps([claude(by("human", "Hi."))]).encode()})
    (tmp_path / "talk.txt").write_text("Ada: I sail.\nBob: Oh.\n")
    assert read(tmp_path, user_speaker="Ada")[0] == [[("user", "Hi.")], [("user", "I sail."), ("other", "Oh.")]]
    with pytest.raises(UnknownSpeaker, match="the speakers are Ada"):
        read(tmp_path)
    with pytest.raises(UnknownSpeaker, match="nobody is called 'Eve'"):
        read(tmp_path, user_speaker="Eve")


@pytest.mark.parametrize(("name", "user"), [("Ada", "Hi."), ("human", "Hi."), ("assistant", "Yes?")])
def test_a_name_of_another_files_speaker_counts_for_nothing_in_an_export(tmp_path: Path, name: str, user: str) -> None:
    path = archive(
        tmp_path, {"conversations.json": json.dumps([claude(by("human", "Hi."), by("assistant", "Yes?"))]).encode()}
    )
    (found,) = read(path, user_speaker=name)[0]
    assert [text for role, text in found if role == "user"] == [user]


def test_names_in_an_archive_are_no_paths(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    data = json.dumps([claude(by("human", "Hi."))]).encode()
    assert read(archive(inside, {"../../../conversations.json": data}))[0] == [[("user", "Hi.")]]
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_a_member_without_a_name_is_no_crash(tmp_path: Path) -> None:
    data = json.dumps([claude(by("human", "Hi."))]).encode()
    path = archive(tmp_path, {"nameless": b"x", "conversations.json": data})
    path.write_bytes(path.read_bytes().replace(b"nameless", b"\0ameless"))
    assert read(path)[0] == [[("user", "Hi.")]]


def test_a_bomb_is_refused_by_what_its_directory_says(tmp_path: Path) -> None:
    path = archive(tmp_path, {"conversations.json": b" " * 40_000_000})
    assert path.stat().st_size < 100_000
    with pytest.raises(TranscriptTooLarge, match="expands to more than 200 times") as caught:
        read(path)
    assert caught.value.status_code == 413


def test_a_bomb_that_lies_about_its_size_is_stopped_while_it_is_read(tmp_path: Path) -> None:
    path = archive(tmp_path, {"conversations.json": b'{"chat_messages": [' + b" " * 40_000_000})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<L", 1000)
    path.write_bytes(data)
    with pytest.raises(TranscriptRefused) as caught:
        read(path)
    assert "conversations.json" in caught.value.message


def test_a_member_over_the_limit_is_refused_by_its_unpacked_size(tmp_path: Path) -> None:
    path = archive(tmp_path, {"conversations.json": os.urandom(50_000).hex().encode()})
    with pytest.raises(TranscriptTooLarge, match="max_file_bytes"):
        read(path, max_file_bytes=80_000)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_may_ask_for_gigabytes_are_refused(tmp_path: Path, method: int) -> None:
    path = archive(tmp_path, {"conversations.json": json.dumps([claude(by("human", "x"))]).encode()}, method=method)
    with pytest.raises(TranscriptUnreadable, match="other than deflate"):
        read(path)


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, {"conversations.json": b"[]"}, method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    path.write_bytes(data)
    with pytest.raises(TranscriptUnreadable, match="is encrypted"):
        read(path)


def test_a_list_of_names_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, {"conversations.json": b"[]"})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x05\x06")
    data[at + 12 : at + 16] = struct.pack("<L", 2_000_000_000)
    path.write_bytes(data)
    with pytest.raises(TranscriptTooLarge, match="list of names has 2000000000 bytes"):
        read(path)


def test_damaged_data_are_refused_by_their_check_sum(tmp_path: Path) -> None:
    value = json.dumps([claude(by("human", "Hi there, this is a text."))]).encode()
    path = archive(tmp_path, {"conversations.json": value}, method=zipfile.ZIP_STORED)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Hi there, this is a text.", b"Ho there, this is a text."))
    with pytest.raises(TranscriptUnreadable, match="is damaged"):
        read(path)


@pytest.mark.parametrize("cut", range(1, 300, 7))
def test_an_archive_cut_off_anywhere_is_refused(tmp_path: Path, cut: int) -> None:
    path = archive(tmp_path, {"conversations.json": json.dumps([claude(by("human", "Hi."))]).encode()})
    data = path.read_bytes()
    path.write_bytes(data[: max(4, len(data) - cut)])
    with pytest.raises(TranscriptRefused) as caught:
        read(path)
    assert str(path) in caught.value.message


def read_or_refused(path: Path, *, format: str) -> None:
    """Read `path`; let only a refusal pass that names the file and can be printed."""
    try:
        list(read_transcripts(path, format=format))
    except TranscriptRefused as exc:
        if str(path) not in exc.message:
            raise
        exc.message.encode()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_an_archive_changed_anywhere_is_read_or_refused(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    path = archive(tmp_path, {"a.png": b"x", "conversations.json": json.dumps([claude(by("human", "Hi."))]).encode()})
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data)
    read_or_refused(path, format="claude-ai")


KEYS = ["chat_messages", "sender", "text", "content", "type", "mapping", "parent", "message", "author", "role", "parts"]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(JSON)
def test_any_json_is_read_or_refused(tmp_path: Path, value: Any) -> None:
    path = write(tmp_path, [value])
    for format in ("claude-ai", "chatgpt", "claude-code"):
        read_or_refused(path, format=format)
