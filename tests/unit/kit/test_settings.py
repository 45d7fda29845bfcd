from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from kit.errors import SettingsInvalid
from kit.settings import DatabaseSettings, Settings


class Example(Settings):
    threads: int = Field(2, ge=1, description="how many")
    token: SecretStr = Field(min_length=16, description="what to present")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORRY_TOKEN", "long-enough-to-be-one")


def test_a_value_that_cannot_be_used_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORRY_THREADS", "many")
    with pytest.raises(SettingsInvalid, match=r"LORRY_THREADS: .*integer.* \(got 'many'\)") as caught:
        Example.read()
    assert caught.value.field == "LORRY_THREADS"


def test_every_problem_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORRY_THREADS", "0")
    monkeypatch.delenv("LORRY_TOKEN")
    with pytest.raises(SettingsInvalid) as caught:
        Example.read()
    assert len(caught.value.message.splitlines()) == 2
    assert "LORRY_TOKEN: is not set (what to present)" in caught.value.message


def test_a_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORRY_TOKEN", "hush")
    with pytest.raises(SettingsInvalid) as caught:
        Example.read()
    assert "hush" not in caught.value.message
    assert caught.value.__cause__ is None


def test_a_database_url_needs_its_driver_and_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORRY_DATABASE_URL", "postgresql://ada:hush@db/lorry")
    with pytest.raises(SettingsInvalid, match=r"must begin with postgresql\+asyncpg://") as caught:
        DatabaseSettings.read()
    assert "hush" not in caught.value.message


@pytest.mark.parametrize("module", ["registry", "serving.gateway", "serving.engine"])
def test_a_process_without_settings_says_which_it_needs(module: str) -> None:
    process = module.rpartition(".")[2]
    root = Path(__file__).resolve().parents[3]
    ended = subprocess.run(
        [sys.executable, "-m", module], capture_output=True, text=True, timeout=120, cwd=root, env={}, check=False
    )
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith(f"{process}: LORRY_") and "is not set" in line for line in lines), ended.stderr
