"""Logs that grow while parts write to them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lorry.home import Home
from lorry.local.logs import trim_logs

_WRITE = "import sys\nfor line in sys.stdin: print(line.strip(), flush=True)"


def test_a_log_that_has_grown_too_long_moves_aside_and_its_part_writes_on(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    path = home.logs / "engine.log"
    with path.open("ab") as log:
        part = subprocess.Popen([sys.executable, "-c", _WRITE], stdin=subprocess.PIPE, stdout=log, text=True)
    assert part.stdin is not None
    part.stdin.write("first\n" * 100)
    part.stdin.flush()
    while path.stat().st_size < 600:
        pass
    trim_logs(home, most_bytes=500)
    assert path.stat().st_size == 0
    part.communicate("second\n")
    assert path.read_text() == "second\n", "it goes on at the beginning, with no hole before it"
    assert (home.logs / "engine.log.1").read_text() == "first\n" * 100


def test_a_short_log_stays_and_of_the_older_ones_only_the_last_is_kept(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    long, short = home.logs / "engine.log", home.logs / "registry.log"
    for number in range(3):
        long.write_text(str(number) * 100)
        short.write_text("short")
        trim_logs(home, most_bytes=50)
    assert sorted(path.name for path in home.logs.iterdir()) == ["engine.log", "engine.log.1", "registry.log"]
    assert (home.logs / "engine.log.1").read_text() == "2" * 100
    assert short.read_text() == "short"
