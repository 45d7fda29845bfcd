"""Other people's adapters that commands fetch to compare with, left by those that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lorry.erasure.files import RIVALS, clear_rivals
from lorry.home import Home


def test_what_a_killed_command_had_fetched_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        (home.folder(RIVALS, f"{pid}-abcdefgh") / "weights").write_bytes(b"w")
    assert clear_rivals(home) == [os.getpid()]
    assert [path.name for path in (tmp_path / RIVALS).iterdir()] == [f"{os.getpid()}-abcdefgh"]


def test_a_home_in_which_nothing_was_compared_has_nothing_to_remove(tmp_path: Path) -> None:
    assert clear_rivals(Home.open(tmp_path)) == []
