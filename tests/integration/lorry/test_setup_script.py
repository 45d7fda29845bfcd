"""scripts/setup.sh, with a Python that only pretends to install: what happens when somebody stops it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[3]
# Makes a virtual environment whose pip never ends, but for the first question what there is to download.
PYTHON = """#!/bin/bash
if [ "$1 $2" = "-m venv" ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; exit 0; fi
if [ "$1 $2" = "-m pip" ]; then
    case "$*" in *" download "*) exit 0;; esac
    echo $$ >pid
    exec sleep 60
fi
exit 0
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_setup_that_is_stopped_says_so_and_leaves_nothing_running(
    checkout: Path, signum: signal.Signals, code: int
) -> None:
    environment = os.environ | {"PYTHON": str(checkout / "python")}
    with subprocess.Popen(
        [checkout / "scripts" / "setup.sh"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as setup:
        deadline = time.monotonic() + 120
        while not (checkout / "pid").exists() or not (checkout / "pid").read_text().strip():
            assert time.monotonic() < deadline, "pip was not started"
            time.sleep(0.05)
        setup.send_signal(signum)
        _, told = setup.communicate(timeout=120)
    assert setup.returncode == code
    assert told.splitlines()[-1] == "setup: interrupted; run it again to go on"
    assert max(map(len, told.splitlines())) <= 80
    assert not psutil.pid_exists(int((checkout / "pid").read_text()))
    assert not (checkout / ".venv" / ".lorry-setup").exists()
