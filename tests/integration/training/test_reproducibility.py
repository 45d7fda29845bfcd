from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from training.config import ResolvedConfig
from training.dataset import Dataset
from training.trainer import Trainer

FILES = ("adapter_config.json", "adapter_model.safetensors")
PROGRAM = """
import sys
from pathlib import Path
from training.config import ResolvedConfig
from training.dataset import Dataset
from training.trainer import Trainer

base, config, root, *names = sys.argv[1:]
trainer = Trainer(Path(base), device="cpu")
for name in names:
    dataset = Dataset.load(Path(root) / name / "dataset")
    trainer.train(dataset, ResolvedConfig.from_yaml(Path(config).read_text()), Path(root) / name / "run")
"""


def train_elsewhere(base: Path, config: ResolvedConfig, root: Path, *, order: list[str], hash_seed: str) -> None:
    """Train the datasets under `root` in a process of its own."""
    file = root / "config.yaml"
    file.write_text(config.to_yaml())
    command = [sys.executable, "-c", PROGRAM, str(base), str(file), str(root), *order]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_same_training_gives_the_same_bytes_in_any_process_and_after_anybody(
    trainer: Trainer, tiny_base: Path, ada: Dataset, bob: Dataset, brief: ResolvedConfig, tmp_path: Path
) -> None:
    """Here Ada goes first and Bob second; elsewhere Bob is alone before Ada comes."""
    here = {"ada": trainer.train(ada, brief, tmp_path / "ada"), "bob": trainer.train(bob, brief, tmp_path / "bob")}
    elsewhere = tmp_path / "elsewhere"
    for name, dataset in (("ada", ada), ("bob", bob)):
        dataset.save(elsewhere / name / "dataset")
    train_elsewhere(tiny_base, brief, elsewhere, order=["bob", "ada"], hash_seed="77")
    for name, run in here.items():
        for file in FILES:
            there = (elsewhere / name / "run" / "adapter" / file).read_bytes()
            assert (run.adapter_directory / file).read_bytes() == there, f"{name}: {file} differs"


def test_another_seed_gives_other_weights(
    trainer: Trainer, ada: Dataset, brief: ResolvedConfig, tmp_path: Path
) -> None:
    other = brief.model_copy(update={"training": brief.training.model_copy(update={"seed": 12, "steps": 1})})
    same = brief.model_copy(update={"training": brief.training.model_copy(update={"steps": 1})})
    one, two = trainer.train(ada, same, tmp_path / "one"), trainer.train(ada, other, tmp_path / "two")
    weights = [run.adapter_directory / "adapter_model.safetensors" for run in (one, two)]
    assert weights[0].read_bytes() != weights[1].read_bytes()
