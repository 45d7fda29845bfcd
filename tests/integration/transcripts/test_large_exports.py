"""Exports of hundreds of megabytes are imported in the memory that one conversation takes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEGABYTE = 1_000_000
CONVERSATION_BYTES = 100_000
WORDS = ("word" * 10 + " ") * 18
CODE = """
import json, sys
from pathlib import Path
from transcripts.importer import read_transcripts

def import_all(path):
    found = turns = 0
    for transcript in read_transcripts(path):
        found, turns = found + 1, turns + len(transcript.turns)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    # Not what getrusage says: that counts the process that this one was forked from, which is larger.
    return {"transcripts": found, "turns": turns, "peak_kib": int(status["VmHWM"].split()[0])}

print(json.dumps([import_all(path) for path in sys.argv[1:]]))
"""


def chatgpt(number: int) -> str:
    nodes, parent = {}, None
    for index in range(CONVERSATION_BYTES // 1000):
        key = f"{number}-{index}"
        message = {
            "author": {"role": "assistant" if index % 2 else "user"},
            "create_time": number * 1000 + index,
            "content": {"content_type": "text", "parts": [f"{key} {WORDS}"]},
        }
        nodes[key] = {"id": key, "parent": parent, "children": [], "message": message}
        parent = key
    return json.dumps({"title": str(number), "mapping": nodes, "current_node": parent})


def claude_code(number: int) -> Iterator[str]:
    """One session of a few words and many results of tools, as they are."""
    yield json.dumps({"type": "user", "uuid": "0", "sessionId": "s", "message": {"content": f"Session {number}."}})
    result = [{"type": "tool_result", "tool_use_id": "t", "content": "x" * 99_000}]
    for index in range(1, number):
        line = {"type": "user", "uuid": f"{index}", "parentUuid": f"{index - 1}", "message": {"content": result}}
        yield json.dumps(line)


def write_array(path: Path, conversations: int) -> Path:
    with path.open("w") as file:
        file.write("[")
        for number in range(conversations):
            file.write(("," if number else "") + chatgpt(number))
        file.write("]")
    return path


def zipped(path: Path) -> Path:
    target = path.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(path, "conversations.json")
    return target


def measure(*paths: Path) -> list[dict[str, int]]:
    argv = [sys.executable, "-c", CODE, *map(str, paths)]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True)
    found: list[dict[str, int]] = json.loads(ran.stdout)
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory that is emptied at once: what is written here is too large to be kept for three runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def small_and_large(directory: Path) -> tuple[Path, Path]:
    small, large = write_array(directory / "small.json", 20), write_array(directory / "large.json", 2200)
    assert large.stat().st_size > 200 * MEGABYTE
    return small, large


def test_200_mb_of_chatgpt_take_no_more_memory_than_2(small_and_large: tuple[Path, Path]) -> None:
    small, large = small_and_large
    few, many = measure(small, zipped(large))
    assert (few["transcripts"], many["transcripts"], many["turns"]) == (20, 2200, 220_000)
    # What grows is what is remembered of each message, to know it again: up to 24 bytes.
    grown_mib = (many["peak_kib"] - few["peak_kib"]) / 1024
    assert grown_mib < 32, f"from {few['peak_kib'] / 1024:.0f} MiB by {grown_mib:.0f} MiB"


def test_a_conversation_of_any_size_is_passed_over_in_the_same_memory(directory: Path) -> None:
    paths = []
    for megabytes in (60, 180):
        path = directory / f"{megabytes}.json"
        with path.open("w") as file:
            file.write(f'[{chatgpt(0)}, {{"title": "Everything", "mapping": {{')
            node = json.dumps({"message": {"content": {"parts": [WORDS * 100]}}})
            file.writelines(f'"{number}": {node}, ' for number in range(megabytes * MEGABYTE // len(node)))
            file.write(f'"last": {{}}}}}}, {chatgpt(1)}]')
        paths.append(path)
    large, larger = measure(*paths)
    assert (large["transcripts"], larger["transcripts"]) == (2, 2)
    assert larger["peak_kib"] - large["peak_kib"] < 16 * 1024


def test_60_mb_of_one_claude_code_session_take_the_memory_of_what_was_said(directory: Path) -> None:
    paths = []
    for lines in (10, 640):
        path = directory / f"{lines}.jsonl"
        path.write_text("".join(line + "\n" for line in claude_code(lines)))
        paths.append(path)
    assert paths[1].stat().st_size > 60 * MEGABYTE
    few, many = measure(*paths)
    assert (few["turns"], many["turns"]) == (1, 1)
    assert many["peak_kib"] - few["peak_kib"] < 16 * 1024
