"""Our worker parts and stock vLLM's on the same model with the same adapters: equal answers, unequal ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.engine.settings import EngineSettings

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parents[3]
SIZE_BYTES = 19_537_920  # rank 16, seven layers, float32


@pytest.fixture(scope="module")
def adapters(random_adapter: Callable[..., Path]) -> list[Path]:
    return [random_adapter(seed) for seed in range(80, 86)]


@pytest.fixture(scope="module")
def run_probe(
    adapters: list[Path], base_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    def run(mode: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp(f"probe-{mode}-")
        for number, adapter in enumerate(adapters):
            shutil.copytree(adapter, folder / f"a{number}")
        command = [sys.executable, "-m", "tests.support.engine_probe", mode, str(base_directory), str(folder)]
        environment = variables(mode, base_directory, folder / "cache")
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            output = process.communicate(timeout=420)[0].decode()
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        lines = [line for line in output.splitlines() if line.startswith("SEEN ")]
        assert lines, output[-4000:]
        seen: dict[str, Any] = json.loads(lines[-1].removeprefix("SEEN "))
        return seen

    return run


def variables(mode: str, base: Path, cache: Path) -> dict[str, str]:
    settings = EngineSettings(
        base_directory=base,
        engine_token="engine-token",
        registry_url="http://127.0.0.1:1",
        registry_engine_token="registry-token",
        adapter_cache_directory=cache,
    )
    own = settings.to_environment() if mode == "ours" else {}
    return {
        **os.environ,
        **own,
        "PYTHONPATH": os.pathsep.join([*os.environ.get("PYTHONPATH", "").split(os.pathsep), str(ROOT)]),
        "VLLM_PLUGINS": "lorry" if mode == "ours" else "",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(scope="module")
def ours(run_probe: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return run_probe("ours")


@pytest.fixture(scope="module")
def stock(run_probe: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return run_probe("stock")


def test_loading_takes_no_slot(ours: dict[str, Any]) -> None:
    assert ours["slots_after_loading"] == [None, None]


def test_adapters_answer_in_slots_that_change_hands_as_they_do_alone(ours: dict[str, Any]) -> None:
    assert ours["together"] == [True] * 6
    assert len({ours["base"], *ours["texts"]}) == 5


def test_no_file_is_needed_once_an_adapter_is_staged(ours: dict[str, Any]) -> None:
    assert ours["still_answers"] == ours["texts"][0]
    assert len(ours["activation_seconds"]) >= 10


def test_an_adapter_of_a_running_request_stays(ours: dict[str, Any]) -> None:
    assert ours["removed_while_running"] is False
    assert ours["erased_while_running"] is False


def test_erasing_zeroes_the_slot_and_frees_the_memory(ours: dict[str, Any]) -> None:
    assert any(name is not None and name.endswith("3") for name in ours["slots_before_erasing"])
    assert ours["erased"] == {"freed_bytes": SIZE_BYTES, "slots_zeroed": 1}
    assert not any(name is not None and name.endswith("3") for name in ours["slots_after_erasing"])
    assert ours["registered_under_two_numbers"] is True
    assert ours["numbers_after_erasing"] == [2, 3]


def test_what_a_step_no_longer_finds_is_told_and_gets_nobodys_weights(ours: dict[str, Any]) -> None:
    assert ours["lost_text_is_the_bases"] is True
    assert ours["lost"] == [f"v{3:032x}"]


def test_a_file_that_is_not_the_manifests_is_refused_and_a_sound_one_staged(ours: dict[str, Any]) -> None:
    assert ours["damaged"] == "AdapterDamaged: The adapter's memory is not what was opened for it."
    assert ours["sound"] == "staged"


def test_an_adapter_that_was_not_staged_is_not_registered(ours: dict[str, Any]) -> None:
    assert ours["registered_unstaged"] is False


def test_stock_answers_the_same_while_nothing_is_missing(ours: dict[str, Any], stock: dict[str, Any]) -> None:
    assert (ours["base"], ours["texts"]) == (stock["base"], stock["texts"])


def test_stock_dies_for_everyone_when_an_evicted_adapters_directory_is_gone(stock: dict[str, Any]) -> None:
    assert "EngineDeadError" in stock["after"]
    assert stock["base_after"] == "EngineDeadError"
