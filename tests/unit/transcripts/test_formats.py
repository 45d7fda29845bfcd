"""What each format keeps, drops and joins."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transcripts.errors import TranscriptNotFound, TranscriptRefused, UnknownFormat
from transcripts.formats import FORMATS, require_format
from transcripts.formats.chitchat import Person, dataset_path, people
from transcripts.importer import Speaker, detect_format, list_speakers, read_transcripts
from transcripts.transcript import Transcript


def write(directory: Path, text: str, name: str = "chat") -> Path:
    path = directory / name
    path.write_bytes(text.encode())
    return path


def said(transcript: Transcript) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in transcript.turns]


def openai(*messages: dict[str, Any], **extra: Any) -> str:
    return json.dumps({**extra, "messages": list(messages)})


def test_every_format_is_registered_under_its_own_name() -> None:
    assert {name: format.name for name, format in FORMATS.items()} == {name: name for name in FORMATS}
    assert require_format("openai_messages") is FORMATS["openai-messages"]
    with pytest.raises(UnknownFormat):
        require_format("")


def test_openai_messages_drops_system_and_tool_traffic(tmp_path: Path) -> None:
    line = openai(
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": '{"rain": true}', "tool_call_id": "1"},
        {"role": "function", "name": "f", "content": "12"},
        {"role": "assistant", "content": "Rain.\r\n"},
        id=7,
        title=" The\nweather ",
    )
    (transcript,) = read_transcripts(write(tmp_path, line))
    assert said(transcript) == [("user", "What is the weather?"), ("other", "Rain.")]
    assert transcript.source_format == "openai-messages"
    assert transcript.title == "The weather"


def test_openai_messages_keeps_the_text_parts_of_a_list(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_text", "text": "my dog"},
        "and my cat",
    ]
    (transcript,) = read_transcripts(write(tmp_path, openai({"role": "user", "content": parts})))
    assert said(transcript) == [("user", "Look:\nmy dog\nand my cat")]


def test_openai_messages_reads_times_as_utc(tmp_path: Path) -> None:
    times = ["2024-05-01T10:00:00+02:00", "2024-05-01T08:00:00Z", "2024-05-01T08:00:00", 1714550400, None]
    line = openai(*({"role": "user", "content": "hi", "timestamp": time} for time in times))
    (transcript,) = read_transcripts(write(tmp_path, line))
    eight = datetime(2024, 5, 1, 8, tzinfo=UTC)
    assert [turn.time for turn in transcript.turns] == [eight, eight, eight, eight, None]
    assert transcript.started_at == eight


def test_openai_messages_reads_arrays_and_pretty_printed_objects_as_well(tmp_path: Path) -> None:
    values = [{"messages": [{"role": "user", "content": f"line {n}"}]} for n in range(3)]
    texts = [
        "\n".join(json.dumps(value) for value in values),
        "\r\n\r\n".join(json.dumps(value) for value in values) + "\r\n",
        "\n".join(json.dumps(value, indent=2) for value in values),
        json.dumps(values),
        "\ufeff" + json.dumps(values, indent=1),
    ]
    read = [list(read_transcripts(write(tmp_path, text))) for text in texts]
    assert [said(t) for t in read[0]] == [[("user", f"line {n}")] for n in range(3)]
    assert all(other == read[0] for other in read)


def test_sharegpt_maps_speakers_and_drops_tools(tmp_path: Path) -> None:
    value = {
        "id": "a",
        "conversations": [
            {"from": "system", "value": "Be kind."},
            {"from": "human", "value": "Hi, I paint."},
            {"from": "gpt", "value": "What?"},
            {"from": "function_call", "value": "{}"},
            {"from": "observation", "value": "12"},
            {"from": "user", "value": "Birds."},
            {"from": "assistant", "value": "Nice."},
            {"from": "gpt", "value": None},
        ],
    }
    expected = [("user", "Hi, I paint."), ("other", "What?"), ("user", "Birds."), ("other", "Nice.")]
    for text in (json.dumps([value]), json.dumps(value) + "\n"):
        (transcript,) = read_transcripts(write(tmp_path, text))
        assert said(transcript) == expected
        assert transcript.source_format == "sharegpt"


def test_one_conversation_in_two_formats_is_one_transcript(tmp_path: Path) -> None:
    shared = {"conversations": [{"from": "human", "value": "I sail.\r\nOften."}, {"from": "gpt", "value": "Where?"}]}
    first = openai({"role": "user", "content": "I sail.\nOften. "}, {"role": "assistant", "content": "Where?"})
    plain = "Me: I sail.\r\nOften.\r\n\r\nYou: Where?\r\n"
    ids = {
        *(t.id for t in read_transcripts(write(tmp_path, json.dumps([shared]), "a"))),
        *(t.id for t in read_transcripts(write(tmp_path, first, "b"))),
        *(t.id for t in read_transcripts(write(tmp_path, plain, "c"), user_speaker="Me")),
        *(t.id for t in read_transcripts(write(tmp_path, plain.replace("\n", ""), "d"), user_speaker="Me")),
    }
    assert len(ids) == 1


def test_another_speaker_can_be_named_as_the_user(tmp_path: Path) -> None:
    path = write(tmp_path, openai({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}))
    (transcript,) = read_transcripts(path, user_speaker="assistant")
    assert said(transcript) == [("other", "a"), ("user", "b")]


def test_plain_text_joins_lines_and_keeps_blank_ones_inside_a_turn(tmp_path: Path) -> None:
    text = (
        "\n"
        "Ann: I went to https://example.org\n"
        "and it said:\n"
        "\n"
        "  Note: closed\n"
        "\n"
        "\n"
        "Dr. Bob (work): At 10:30?\n"
        "Ann:\n"
        "yes\n"
        "Cy Ng:   \n"
        "\n"
    )
    (transcript,) = read_transcripts(write(tmp_path, text), user_speaker="Ann")
    assert said(transcript) == [
        ("user", "I went to https://example.org\nand it said:\n\n  Note: closed"),
        ("other", "At 10:30?"),
        ("user", "yes"),
    ]


def test_plain_text_conversations_are_parted_by_a_line_of_dashes_or_equals(tmp_path: Path) -> None:
    text = "---\nAnn: one\nBob: -- two\n-----\n\nBob: alone\n===\nAnn: three --- four\n====\n"
    path = write(tmp_path, text)
    assert detect_format(path) == "plain-text"
    skipped = []
    found = list(read_transcripts(path, user_speaker="Ann", on_skipped=skipped.append))
    assert [said(t) for t in found] == [[("user", "one"), ("other", "-- two")], [("user", "three --- four")]]
    assert [skip.line for skip in skipped] == [6]


def test_a_long_sentence_with_a_colon_continues_the_turn(tmp_path: Path) -> None:
    path = write(tmp_path, "Ann: so\nwhat I really think is: no\nand then: no\nBob: ok\n")
    (transcript,) = read_transcripts(path, user_speaker="Bob")
    assert said(transcript) == [("other", "so\nwhat I really think is: no\nand then: no"), ("user", "ok")]


def chitchat(*conversations: list[list[tuple[str, str, str]]]) -> str:
    return json.dumps(
        {
            f"c{n}": {
                "messages": [
                    [{"sender": who, "text": text, "timestamp": f"2018-05-02T19:{at}Z"} for who, text, at in burst]
                    for burst in bursts
                ],
                "start": "2018-05-03T01:38:01Z",
                "prompt": "Pets?",
            }
            for n, bursts in enumerate(conversations)
        }
    )


def test_chitchat_joins_a_senders_messages_under_the_first_time(tmp_path: Path) -> None:
    text = chitchat(
        [[("a", "hey", "00:01"), ("a", "I have a dog", "00:05")], [("a", "", "00:06")], [("b", "cool", "00:09")]],
        [[("b", "anyone?", "01:00")]],
    )
    path = write(tmp_path, text)
    assert detect_format(path) == "chitchat"
    (transcript,) = read_transcripts(path, user_speaker="a")
    assert said(transcript) == [("user", "hey\nI have a dog"), ("other", "cool")]
    assert transcript.started_at == datetime(2018, 5, 2, 19, 0, 1, tzinfo=UTC)
    assert transcript.title == "Pets?"
    seen_by_b = list(read_transcripts(path, user_speaker="b"))
    assert [said(t) for t in seen_by_b] == [
        [("other", "hey\nI have a dog"), ("user", "cool")],
        [("user", "anyone?")],
    ]


def test_people_are_ordered_by_words_and_then_by_sender(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        chitchat(
            [[("c", "one two three", "00:01")], [("b", "one two", "00:02")], [("a", "one two", "00:03")]],
            [[("b", "", "00:01")], [("a", "", "00:02")], [("d", "one", "00:02")]],
        ),
    )
    everybody = people(min_conversations=1, min_words=1, path=path)
    assert [(p.sender_id, p.words) for p in everybody] == [("c", 3), ("a", 2), ("b", 2), ("d", 1)]
    assert people(min_conversations=1, min_words=3, path=path) == [Person(sender_id="c", conversations=1, words=3)]
    assert people(min_conversations=2, min_words=1, path=path) == []


def test_the_chitchat_package_has_221_people_who_said_enough() -> None:
    try:
        dataset_path()
    except TranscriptNotFound:
        pytest.skip("chitchat-dataset is not installed")
    found = people(min_conversations=5, min_words=1000)
    assert len(found) == 221
    assert detect_format("chitchat") == "chitchat"
    person = found[-1]
    read = list(read_transcripts("chitchat", user_speaker=person.sender_id))
    assert len(read) == person.conversations
    assert sum(len(turn.text.split()) for t in read for turn in t.user_turns) == person.words
    assert read[0] == next(read_transcripts(Path("chitchat"), user_speaker=person.sender_id))


def test_speakers_are_listed_by_turns_over_a_whole_directory(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, "Ann: a\nBob: b\nBob: c\n", "one.txt")
    write(tmp_path / "sub", openai({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}), "two")
    assert list_speakers(tmp_path) == [
        Speaker(name="Bob", turns=2, is_user=False),
        Speaker(name="Ann", turns=1, is_user=False),
        Speaker(name="assistant", turns=1, is_user=False),
        Speaker(name="user", turns=1, is_user=True),
    ]
    assert [s.turns for s in list_speakers(tmp_path / "one.txt", "plain-text")] == [2, 1]


def test_a_directory_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    for name in ("b", "c/a", "a", "c/.hidden", ".git/x", "d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path, openai({"role": "user", "content": name}), name)
    read = list(read_transcripts(tmp_path))
    assert [t.turns[0].text for t in read] == ["a", "b", "c/a", "d"]


def test_reading_is_lazy_and_yields_what_stands_before_a_fault(tmp_path: Path) -> None:
    path = write(tmp_path, openai({"role": "user", "content": "hi"}) + "\nbroken")
    transcripts = read_transcripts(path, format="openai-messages")
    assert next(transcripts).turns[0].text == "hi"


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).map(
    lambda text: text.replace("\r\n", "\n").strip()
)
SAID = st.lists(st.tuples(st.sampled_from(["user", "other"]), TEXT.filter(bool)), min_size=1, max_size=8).filter(
    lambda turns: any(role == "user" for role, _ in turns)
)
in_one_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@in_one_directory
@given(st.lists(SAID, min_size=1, max_size=5), st.booleans(), st.sampled_from([None, 1]))
def test_openai_messages_round_trip(
    tmp_path: Path, conversations: list[list[tuple[str, str]]], ascii_only: bool, indent: int | None
) -> None:
    values = [{"messages": [{"role": role, "content": text} for role, text in turns]} for turns in conversations]
    text = "\n".join(json.dumps(value, ensure_ascii=ascii_only, indent=indent) for value in values)
    assert [said(t) for t in read_transcripts(write(tmp_path, text))] == conversations


@in_one_directory
@given(st.lists(SAID, min_size=1, max_size=5), st.booleans())
def test_sharegpt_round_trip(tmp_path: Path, conversations: list[list[tuple[str, str]]], array: bool) -> None:
    names = {"user": "human", "other": "gpt"}
    values = [{"conversations": [{"from": names[r], "value": text} for r, text in turns]} for turns in conversations]
    text = json.dumps(values) if array else "\n".join(map(json.dumps, values))
    assert [said(t) for t in read_transcripts(write(tmp_path, text))] == conversations


LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=":"), min_size=1).map(str.strip)
SAID_IN_LINES = st.lists(
    st.tuples(
        st.sampled_from(["user", "other"]),
        st.lists(LINE.filter(lambda line: bool(line) and line[0] not in "-="), min_size=1, max_size=4).map("\n".join),
    ),
    min_size=1,
    max_size=8,
).filter(lambda turns: any(role == "user" for role, _ in turns))


@in_one_directory
@given(st.lists(SAID_IN_LINES, min_size=1, max_size=4), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_plain_text_round_trip(
    tmp_path: Path, conversations: list[list[tuple[str, str]]], end: str, blank: bool
) -> None:
    names = {"user": "Ann", "other": "Bob Lee"}
    between = "\n\n" if blank else "\n"
    written = [between.join(f"{names[role]}: {text}" for role, text in turns) for turns in conversations]
    text = "\n---\n".join(written).replace("\n", end)
    assert [said(t) for t in read_transcripts(write(tmp_path, text), user_speaker="Ann")] == conversations


KEYS = ["messages", "conversations", "role", "content", "from", "value", "sender", "text", "timestamp"]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
)


def read_or_refused(path: Path, format: str | None) -> None:
    """Read `path`; let only a refusal pass that names the file and can be printed."""
    try:
        list(read_transcripts(path, format=format, user_speaker="A"))
    except TranscriptRefused as exc:
        if str(path) not in exc.message:
            raise
        exc.message.encode()


@in_one_directory
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_their_file_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "chat"
    path.write_bytes(data)
    for format in (None, *FORMATS):
        read_or_refused(path, format)


@in_one_directory
@given(JSON)
def test_any_json_is_read_or_refused_with_its_file_named(tmp_path: Path, value: Any) -> None:
    path = write(tmp_path, json.dumps(value))
    for format in (None, *FORMATS):
        read_or_refused(path, format)


def test_a_text_in_no_format_is_told_how_plain_text_looks(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("just some words\nand more of them\n")
    with pytest.raises(UnknownFormat, match="`Name: `"):
        detect_format(path)
