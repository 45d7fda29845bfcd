"""Folders in the making, and those that nobody makes anything in any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from kit.staging import staging

_DAYS_AGO = time.time() - 3 * 86_400
_MAKE = """
import sys, time
from pathlib import Path
from kit.staging import staging
with staging(Path(sys.argv[1]), prefix=".partial-") as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


def make_elsewhere(directory: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", _MAKE, str(directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        folder = Path(process.stdout.readline().strip())
    (folder / "weights").write_bytes(b"w")
    os.utime(folder, (_DAYS_AGO, _DAYS_AGO))
    return process, folder


def test_what_is_renamed_stays_and_what_is_not_is_gone(tmp_path: Path) -> None:
    with staging(tmp_path, prefix=".partial-") as one, staging(tmp_path, prefix=".partial-") as two:
        assert one.stat().st_mode & 0o077 == 0
        (one / "file").write_text("made")
        one.rename(tmp_path / "made")
        (two / "file").write_text("given up")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert (tmp_path / "made" / "file").read_text() == "made"


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    killed, left = make_elsewhere(tmp_path)
    working, in_use = make_elsewhere(tmp_path)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait(30)
        with staging(tmp_path, prefix=".partial-"):
            assert not left.exists()
            assert (in_use / "weights").exists()
    finally:
        working.kill()
        working.wait(30)


def test_what_is_young_or_called_otherwise_is_left_alone(tmp_path: Path) -> None:
    young, other, file = tmp_path / ".partial-young", tmp_path / "partial", tmp_path / ".partial-file"
    young.mkdir()
    other.mkdir()
    file.write_text("no folder")
    for path in (other, file):
        os.utime(path, (_DAYS_AGO, _DAYS_AGO))
    with staging(tmp_path, prefix=".partial-"):
        assert young.is_dir()
        assert other.is_dir()
        assert file.is_file()
