from pathlib import Path

import pytest

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
