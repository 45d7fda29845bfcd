"""Files that are written anew while others read them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kit.whole import write_whole


def test_a_reader_sees_what_was_there_or_all_of_what_comes(tmp_path: Path) -> None:
    path = tmp_path / "current"
    texts = {letter * 100_000 for letter in "ab"}
    write_whole(path, min(texts))
    done = threading.Event()

    def write() -> None:
        for _ in range(200):
            for text in texts:
                write_whole(path, text)
        done.set()

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_text())
    for writer in writers:
        writer.join()
    assert seen <= texts
    assert path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "current"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
