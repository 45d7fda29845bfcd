from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from lorry.errors import MachineTooSmall
from lorry.local.machine import check_machine

_Memory = namedtuple("_Memory", "available")


def test_too_little_memory_is_reported_with_both_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: _Memory(available=1 << 30))
    with pytest.raises(MachineTooSmall, match=r"4\.7 GiB of memory are needed for postgres, engine; 1\.0 GiB are free"):
        check_machine(("postgres", "engine"), home=tmp_path)


def test_too_little_disk_is_reported_with_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10, 10, 1))
    with pytest.raises(MachineTooSmall, match="disk"):
        check_machine(("postgres",), home=tmp_path)


def test_a_machine_with_room_is_accepted(tmp_path: Path) -> None:
    check_machine(("postgres",), home=tmp_path)
