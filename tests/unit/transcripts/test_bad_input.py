"""Every kind of bad file: refused with file, line and reason, and nothing yielded that must not be."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path

import pytest

from transcripts.errors import (
    NoUserTurn,
    TranscriptEmpty,
    TranscriptNotFound,
    TranscriptRefused,
    TranscriptTooLarge,
    TranscriptTruncated,
    TranscriptUnreadable,
    UnknownFormat,
    UnknownSpeaker,
)
from transcripts.importer import Skipped, detect_format, list_speakers, read_transcripts

GOOD = '{"messages": [{"role": "user", "content": "I keep bees."}, {"role": "assistant", "content": "How many?"}]}'


def write(directory: Path, data: bytes | str, name: str = "chat.jsonl") -> Path:
    path = directory / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refusal(path: Path, **options: object) -> TranscriptRefused:
    with pytest.raises(TranscriptRefused) as caught:
        list(read_transcripts(path, **options))  # type: ignore[arg-type]
    assert str(path) in caught.value.message
    return caught.value


def record(*messages: object) -> str:
    return json.dumps({"messages": list(messages)})


@pytest.mark.parametrize("content", [b"", b"\n\n  \r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf \n"])
@pytest.mark.parametrize("format", [None, "openai-messages", "sharegpt", "plain-text", "chitchat"])
def test_a_file_without_text_is_empty(tmp_path: Path, content: bytes, format: str | None) -> None:
    error = refusal(write(tmp_path, content), format=format, user_speaker="Ann")
    assert isinstance(error, TranscriptEmpty)


def test_a_directory_without_files_is_empty(tmp_path: Path) -> None:
    write(tmp_path, GOOD, ".hidden")
    assert isinstance(refusal(tmp_path), TranscriptEmpty)


def test_an_empty_array_is_empty(tmp_path: Path) -> None:
    assert isinstance(refusal(write(tmp_path, "[ ]"), format="sharegpt"), TranscriptEmpty)


def test_bytes_that_are_not_utf8_are_named_by_line_and_offset(tmp_path: Path) -> None:
    data = f"{GOOD}\n{GOOD}\n".encode() + '{"messages": "caf\xe9"}'.encode("latin-1")
    error = refusal(write(tmp_path, data))
    assert isinstance(error, TranscriptUnreadable)
    offset = data.index(b"\xe9")
    assert error.details["byte_offset"] == offset
    assert f"line 3: the byte at offset {offset} is not UTF-8" in error.message


@pytest.mark.parametrize("shift", range(5))
def test_the_offset_is_right_wherever_the_chunks_of_reading_fall(tmp_path: Path, shift: int) -> None:
    filler = b"A: " + b"x" * (65536 - 5 - shift) + b"\n"
    data = filler + "B: é€😀".encode()[:-1] + b"\xff\n"
    error = refusal(write(tmp_path, data), format="plain-text", user_speaker="A")
    assert error.details["byte_offset"] == data.index("😀".encode()[:-1])
    assert error.field is not None
    assert error.field.endswith(":2")


@pytest.mark.parametrize("left", [1, 2, 3])
def test_a_file_that_ends_inside_a_character_is_truncated(tmp_path: Path, left: int) -> None:
    data = "A: hi\nB: 😀".encode()[: left - 4]
    error = refusal(write(tmp_path, data), user_speaker="A")
    assert isinstance(error, TranscriptTruncated)
    assert error.details["byte_offset"] == len(data) - left
    assert error.field is not None
    assert error.field.endswith(":2")


@pytest.mark.parametrize("left", [1, 2, 3])
@pytest.mark.parametrize("lines", [1, 900])
def test_a_record_that_ends_inside_a_character_is_truncated_and_those_before_it_are_read(
    tmp_path: Path, left: int, lines: int
) -> None:
    records = [record({"role": "user", "content": f"Bee {number}."}) for number in range(lines)]
    path = write(
        tmp_path, "\n".join([*records, '{"messages": [{"role": "user", "content": "']).encode() + "😀".encode()[:left]
    )
    found = read_transcripts(path)
    assert [next(found).turns[0].text for _ in range(lines)] == [f"Bee {number}." for number in range(lines)]
    with pytest.raises(TranscriptTruncated, match=f"line {lines + 1}"):
        next(found)


@pytest.mark.parametrize("cut", ["1.", "0.", "-1.", "1e", "1E", "1e+", "2.5e-", "-", "t", "-Inf"])
def test_a_number_or_word_that_the_end_cuts_is_truncated(tmp_path: Path, cut: str) -> None:
    error = refusal(write(tmp_path, f'{GOOD}\n{{"messages": [], "cost": {cut}'))
    assert isinstance(error, TranscriptTruncated)


@pytest.mark.parametrize("wrong", ["1.}", "..", "1..", "1ee", "x", "e"])
def test_a_number_that_is_wrong_in_itself_is_not_cut(tmp_path: Path, wrong: str) -> None:
    error = refusal(write(tmp_path, f'{GOOD}\n{{"messages": [], "cost": {wrong}'))
    assert isinstance(error, TranscriptUnreadable)


def test_utf16_is_not_utf8(tmp_path: Path) -> None:
    assert isinstance(refusal(write(tmp_path, "A: hi".encode("utf-16"))), TranscriptUnreadable)
    error = refusal(write(tmp_path, "A: hi".encode("utf-16-le")))
    assert isinstance(error, TranscriptUnreadable)
    assert "offset 1 is NUL" in error.message


@pytest.mark.parametrize("escape", ["\\u0000", "\\ud83d", "\\ude00 \\ud83d"])
def test_text_that_no_database_can_hold_is_refused_by_field(tmp_path: Path, escape: str) -> None:
    bad = '{"messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": "a' + escape + '"}]}'
    error = refusal(write(tmp_path, f"{GOOD}\n{bad}\n"))
    assert isinstance(error, TranscriptUnreadable)
    assert "line 2: messages[1].content holds" in error.message


def test_a_pair_of_surrogate_escapes_is_one_character(tmp_path: Path) -> None:
    path = write(tmp_path, record({"role": "user", "content": "bees 🐝"}))
    assert "\\ud83d" in path.read_text()
    (transcript,) = read_transcripts(path)
    assert transcript.turns[0].text == "bees 🐝"


@pytest.mark.parametrize("cut", range(1, len(GOOD)))
def test_a_last_line_cut_anywhere_is_truncated(tmp_path: Path, cut: int) -> None:
    error = refusal(write(tmp_path, f"{GOOD}\n{GOOD}\n{GOOD[:cut]}"))
    assert isinstance(error, TranscriptTruncated)
    assert "line 3" in error.message


@pytest.mark.parametrize("cut", [1, 30, 60, -1])
def test_an_array_cut_off_is_truncated(tmp_path: Path, cut: int) -> None:
    whole = json.dumps([{"conversations": [{"from": "human", "value": "I sail."}]}] * 2)
    assert isinstance(refusal(write(tmp_path, whole[:cut]), format="sharegpt"), TranscriptTruncated)


@pytest.mark.parametrize(
    "line",
    ['{"messages": }', "{'messages': []}", '{"messages": [],}', '{"messages": ["\t"]}', '{"messages" []}', "nonsense"],
)
def test_a_line_that_is_not_json_is_named(tmp_path: Path, line: str) -> None:
    for text in (f"{GOOD}\n{line}\n{GOOD}\n", f"{GOOD}\n{line}\n"):
        error = refusal(write(tmp_path, text))
        assert isinstance(error, TranscriptUnreadable)
        assert "line 2: not valid JSON" in error.message


def test_a_line_cut_in_the_middle_of_a_file_is_found_where_it_starts(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, f"{GOOD}\n{GOOD[:40]}\n{GOOD}\n"))
    assert "line 2" in error.message


def test_something_after_the_array_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, f"[{GOOD}]\n{GOOD}")
    assert "line 2: not valid JSON: there is more" in refusal(path).message


@pytest.mark.parametrize("depth", [2_000, 500_000])
def test_deep_nesting_is_refused_and_not_a_crash(tmp_path: Path, depth: int) -> None:
    path = write(tmp_path, f"{GOOD}\n" + '{"messages": ' + "[" * depth + "]" * depth + "}")
    assert isinstance(refusal(path), TranscriptUnreadable)


def test_a_number_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, f'{GOOD}\n{{"messages": [{"9" * 10_000}]}}\n')
    assert isinstance(refusal(path), TranscriptUnreadable)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("7", "line 2: the record must be an object, not a number"),
        ("{}", "line 2: messages must be an array, not null"),
        ('{"messages": {}}', "messages must be an array, not an object"),
        (record("hi"), "messages[0] must be an object, not a string"),
        (record({"content": "hi"}), "messages[0].role must be a string, not null"),
        (record({"role": 1, "content": "hi"}), "messages[0].role must be a string, not a number"),
        (record({"role": "user", "content": True}), "messages[0].content must be a string, not true or false"),
        (record({"role": "user", "content": [3]}), "messages[0].content[0] must be an object, not a number"),
        (record({"role": "user", "content": [{"type": "text", "text": {}}]}), "content[0].text must be a string"),
        (record({"role": "user", "content": "hi", "timestamp": "soon"}), "messages[0].timestamp is not a time"),
        (record({"role": "user", "content": "hi", "timestamp": 1e30}), "messages[0].timestamp is not a time"),
        (record({"role": "user", "content": "hi", "timestamp": [1]}), "timestamp must be a time"),
    ],
)
def test_a_wrong_type_in_openai_messages_is_named_by_path(tmp_path: Path, bad: str, reason: str) -> None:
    error = refusal(write(tmp_path, f"{GOOD}\n{bad}\n"), format="openai-messages")
    assert isinstance(error, TranscriptUnreadable)
    assert reason in error.message
    assert error.field is not None
    assert ":2" in error.field


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"conversations": "hi"}, "conversations must be an array, not a string"),
        ({"conversations": [["human", "hi"]]}, "conversations[0] must be an object, not an array"),
        ({"conversations": [{"from": None, "value": "hi"}]}, "conversations[0].from must be a string, not null"),
        ({"conversations": [{"from": "human", "value": 3}]}, "conversations[0].value must be a string, not a number"),
    ],
)
def test_a_wrong_type_in_sharegpt_is_named_by_path(tmp_path: Path, bad: object, reason: str) -> None:
    error = refusal(write(tmp_path, json.dumps([bad])), format="sharegpt")
    assert reason in error.message


def test_a_file_in_which_the_user_says_nothing_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, record({"role": "assistant", "content": "Hello?"}))
    error = refusal(path)
    assert isinstance(error, NoUserTurn)
    assert "assistant (1 turn)" in error.message


def test_a_file_in_which_nobody_says_anything_is_refused(tmp_path: Path) -> None:
    assert isinstance(refusal(write(tmp_path, record({"role": "user", "content": "  "}))), NoUserTurn)
    assert isinstance(refusal(write(tmp_path, '{"messages": []}')), NoUserTurn)


def test_a_conversation_without_the_user_beside_others_is_skipped_and_told(tmp_path: Path) -> None:
    path = write(tmp_path, record({"role": "assistant", "content": "Hello?"}) + f"\n{GOOD}\n")
    skipped: list[Skipped] = []
    assert len(list(read_transcripts(path, on_skipped=skipped.append))) == 1
    assert skipped == [Skipped(source=str(path), line=1)]


def test_a_sparse_file_of_9_gb_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    path.touch()
    os.truncate(path, 9_000_000_000)
    started = time.thread_time()
    for read in (lambda: list(read_transcripts(path)), lambda: detect_format(path), lambda: list_speakers(path)):
        with pytest.raises(TranscriptTooLarge, match=r"9000000000 bytes or more; the limit is 8000000000") as caught:
            read()
        assert caught.value.status_code == 413
    assert time.thread_time() - started < 0.05


def test_a_file_that_grows_past_the_limit_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, f"{GOOD}\n" * 10)
    transcripts = read_transcripts(path, max_file_bytes=200_000, format="openai-messages")
    next(transcripts)
    with path.open("a") as file:
        file.write(f"{GOOD}\n" * 3000)
    with pytest.raises(TranscriptTooLarge):
        list(transcripts)


@pytest.mark.parametrize("format", ["openai-messages", "plain-text"])
def test_one_huge_line_is_refused_within_the_limit_of_a_conversation(tmp_path: Path, format: str) -> None:
    text = "x" * 300_000
    line = record({"role": "user", "content": text}) if format == "openai-messages" else f"user: {text}"
    path = write(tmp_path, f"{line}\n")
    error = refusal(path, format=format, user_speaker="user", max_transcript_bytes=200_000)
    assert isinstance(error, TranscriptTooLarge)
    assert "line 1" in error.message
    (kept,) = read_transcripts(path, format=format, user_speaker="user", keep_pasted=True)
    assert len(kept.turns[0].text) == 300_000


def test_a_text_conversation_of_many_lines_is_bounded_too(tmp_path: Path) -> None:
    path = write(tmp_path, "A: hello\n" * 1000)
    assert isinstance(refusal(path, user_speaker="A", max_transcript_bytes=1000), TranscriptTooLarge)
    path = write(tmp_path, "A: hello\n---\n" * 1000)
    assert len(list(read_transcripts(path, user_speaker="A", max_transcript_bytes=1000))) == 1000


def test_symbolic_links_and_special_files_are_refused(tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(write(tmp_path, GOOD))
    assert "symbolic link" in refusal(link).message
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe").message
    (tmp_path / "to_directory").symlink_to(tmp_path)
    assert "symbolic link" in refusal(tmp_path / "to_directory").message


def test_a_link_inside_a_directory_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = tmp_path / "inside"
    inside.mkdir()
    write(inside, GOOD)
    (inside / "linked").symlink_to(outside)
    with pytest.raises(TranscriptUnreadable, match="symbolic link"):
        list(read_transcripts(inside))


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    for read in (lambda: list(read_transcripts(tmp_path / "no")), lambda: detect_format(tmp_path / "no")):
        with pytest.raises(TranscriptNotFound) as caught:
            read()
        assert caught.value.status_code == 404


def test_an_unknown_format_is_refused_at_once_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownFormat, match="claude-code, claude-ai, chatgpt, openai-messages, sharegpt, plain-text, chitchat"
    ):
        read_transcripts(tmp_path, format="mbox")


@pytest.mark.parametrize("text", ["From a@b Thu Jan 1\n\nhello", '{"rows": 3}', '[{"id": 1}]', "[1, 2]", "<html>"])
def test_a_file_in_no_known_format_is_refused(tmp_path: Path, text: str) -> None:
    error = refusal(write(tmp_path, text))
    assert isinstance(error, UnknownFormat)
    assert "--format" in error.message


@pytest.mark.parametrize("text", ["[10:32] Ada: hi\n", "[red]Ada[/red]: hi\n", "[Ada]: hi\n", "[[1]]"])
def test_a_line_in_brackets_is_not_taken_for_json(tmp_path: Path, text: str) -> None:
    error = refusal(write(tmp_path, text))
    assert isinstance(error, UnknownFormat)
    assert "plain text begins each turn" in error.message


def test_a_compressed_file_is_told_to_be_unpacked(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, gzip.compress(GOOD.encode())))
    assert isinstance(error, TranscriptUnreadable)
    assert "compressed with gzip: unpack it" in error.message


def test_without_a_name_for_the_user_the_speakers_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path, "Ann: hi\nBob: hello\nAnn: bye\n", "chat.txt")
    error = refusal(path)
    assert isinstance(error, UnknownSpeaker)
    assert "Ann (2 turns), Bob (1 turn): choose one with --user-speaker" in error.message


def test_a_name_that_nobody_has_is_refused_with_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path, "Ann: hi\nBob: hello\n", "chat.txt")
    error = refusal(path, user_speaker="Cy")
    assert isinstance(error, UnknownSpeaker)
    assert "nobody is called 'Cy'; the speakers are Ann (1 turn), Bob (1 turn)" in error.message


def test_many_speakers_are_listed_in_part(tmp_path: Path) -> None:
    path = write(tmp_path, "".join(f"P{n}: hi\n" for n in range(50)), "chat.txt")
    assert "and 30 more" in refusal(path).message


def test_text_before_the_first_speaker_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "Ann: hi\n---\nwho says this?\nAnn: me\n", "chat.txt")
    assert "line 3: text before the first speaker" in refusal(path, user_speaker="Ann").message
