"""Who is the user? Asked at a terminal, and only there."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

CODE = """
import asyncio, sys
from lorry.commands.transcripts import ask_speaker
print("chosen:", asyncio.run(ask_speaker(sys.argv[1], format=None)))
"""


def test_the_user_is_chosen_by_number_at_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    path.write_text("Ada: hello\nBob: hi\nAda: how are you?\n")
    terminal, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", CODE, str(path)], stdin=child, stdout=subprocess.PIPE, stderr=child, text=True
    ) as process:
        os.close(child)
        os.write(terminal, b"7\n2\n")  # the first number is nobody's and is asked for again
        assert process.stdout is not None
        said = process.stdout.read()
    os.close(terminal)
    assert "chosen: Bob" in said


def test_nobody_is_asked_without_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    path.write_text("Ada: hello\nBob: hi\n")
    argv = [sys.executable, "-c", CODE, str(path)]
    ran = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert "chosen: None" in ran.stdout
