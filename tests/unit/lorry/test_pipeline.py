import subprocess
import sys
from pathlib import Path

import pytest

from kit.errors import SettingsInvalid
from lorry.pipeline import resolve_config
from training.errors import ConfigInvalid


def test_arguments_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    file.write_text("rank: 8\nsteps: 30\n")
    config = resolve_config(file, ["steps=50"])
    assert (config.training.rank, config.training.steps) == (8, 50)
    assert (config.origins["rank"], config.origins["steps"], config.origins["alpha"]) == ("file", "argument", "default")


def test_threads_come_from_the_settings_unless_somebody_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORRY_THREADS", "3")
    file = tmp_path / "short.yaml"
    file.write_text("threads: 5\n")
    assert resolve_config(None, []).training.threads == 3
    assert resolve_config(file, []).training.threads == 5
    assert resolve_config(file, ["threads=7"]).training.threads == 7


@pytest.mark.parametrize("setting", ["steps", "stepz=4", "steps=many", "steps=0", "dataset.max_exampels=4"])
def test_a_bad_setting_is_refused_by_name(setting: str) -> None:
    with pytest.raises(ConfigInvalid, match=setting.partition("=")[0].removeprefix("dataset.")):
        resolve_config(None, [setting])


def test_a_base_of_ones_own_is_refused_and_the_real_one_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "short.yaml"
    file.write_text("base: other\n")
    for arguments in ((None, ["base=other"]), (file, [])):
        with pytest.raises(ConfigInvalid, match="LORRY_BASE_MODEL"):
            resolve_config(*arguments)
    monkeypatch.setenv("LORRY_BASE_MODEL", "/models/other")
    config = resolve_config(None, [])
    assert (config.training.base, config.origins["base"]) == ("/models/other", "environment")


def test_a_rank_that_could_not_be_served_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigInvalid, match="raise LORRY_MAX_LORA_RANK"):
        resolve_config(None, ["rank=32"])
    monkeypatch.setenv("LORRY_MAX_LORA_RANK", "32")
    assert resolve_config(None, ["rank=32"]).training.rank == 32


def test_a_setting_that_cannot_be_used_is_refused_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORRY_THREADS", "x")
    with pytest.raises(SettingsInvalid, match="LORRY_THREADS"):
        resolve_config(None, [])


def test_importing_needs_no_training_library() -> None:
    code = "import sys, lorry.pipeline, lorry.cli; print([m for m in ('torch', 'trl', 'peft') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
