from __future__ import annotations

from pathlib import Path

import pytest

from lorry.commands.doctor import find_all


def test_a_home_that_cannot_be_used_is_one_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    (fault,) = [finding for finding in find_all() if str(tmp_path) in finding.detail]
    assert (fault.ok, fault.detail) == (False, f"{tmp_path / 'home'} is a file, not a directory")


def test_memory_and_disk_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORRY_HOME", str(tmp_path))
    found = {finding.check: finding.detail for finding in find_all()}
    assert "GiB" in found["memory"]
    assert found["disk"].endswith("GiB free")


def test_a_device_is_refused_with_what_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORRY_HOME", str(tmp_path))
    monkeypatch.setenv("LORRY_DEVICE", "tpu")
    (fault,) = [finding for finding in find_all() if "LORRY_DEVICE" in finding.detail]
    assert "'cpu' or 'cuda'" in fault.detail
