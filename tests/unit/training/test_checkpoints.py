from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.checkpoints import Checkpoint, CheckpointFolder


def checkpoint(step: int, value: float = 1.0) -> Checkpoint:
    tensors = {"weight": torch.full((3, 2), value), "random": torch.arange(5, dtype=torch.uint8)}
    return Checkpoint(step=step, tensors=tensors, state={"losses": [0.1 + 0.2, 1 / 3], "looks": [[2, 1.5]]})


def test_what_is_saved_is_loaded_bit_by_bit(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "c", inputs="a")
    folder.save(checkpoint(4, 1 / 3))
    found = CheckpointFolder(tmp_path / "c", inputs="a").load()
    assert found is not None
    assert found.step == 4
    assert found.state == checkpoint(4).state
    for name, tensor in checkpoint(4, 1 / 3).tensors.items():
        assert torch.equal(found.tensors[name], tensor)


def test_only_the_newest_is_kept_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, inputs="a")
    for step in (9, 10, 101):
        folder.save(checkpoint(step))
    assert [path.name[:13] for path in tmp_path.iterdir()] == ["step-00000101"]
    found = folder.load()
    assert found is not None
    assert found.step == 101


def test_a_folder_without_a_checkpoint_has_none(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "nowhere", inputs="a").load() is None


def test_a_checkpoint_of_other_inputs_is_not_taken(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, inputs="a").save(checkpoint(3))
    assert CheckpointFolder(tmp_path, inputs="b").load() is None


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_counts_as_none(tmp_path: Path, damage: str) -> None:
    folder = CheckpointFolder(tmp_path, inputs="a")
    folder.save(checkpoint(3))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[:-7]), "empty": b""}[damage])
    assert folder.load() is None


def test_what_a_killed_writer_left_is_not_taken_and_removed_with_the_rest(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "c", inputs="a")
    folder.save(checkpoint(3))
    (tmp_path / "c" / ".partial-left").write_bytes(b"half")
    (tmp_path / "c" / "step-00000009-not-a-digest.safetensors").write_bytes(b"half")
    found = folder.load()
    assert found is not None
    assert found.step == 3
    folder.remove()
    assert not (tmp_path / "c").exists()
    folder.remove()


def test_removing_leaves_what_is_somebody_elses(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, inputs="a")
    folder.save(checkpoint(3))
    (tmp_path / "note.txt").write_text("mine")
    folder.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_write_that_fails_says_so_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, inputs="a")
    folder.save(checkpoint(3))
    unwritable = Checkpoint(step=4, tensors={"x": torch.zeros(2)}, state={})
    blocked = CheckpointFolder(tmp_path / "file" / "below", inputs="a")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="below"):
        blocked.save(unwritable)
    found = folder.load()
    assert found is not None
    assert found.step == 3
