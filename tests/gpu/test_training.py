"""QLoRA on a CUDA device: skipped, and said so, where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.people import write_transcripts
from training.config import resolve
from training.dataset import build_dataset
from training.trainer import Trainer
from transcripts.importer import read_transcripts

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_the_same_training_gives_the_same_bytes_on_a_gpu(base_directory: Path, tmp_path: Path) -> None:
    config = resolve(arguments={"steps": 6, "dataset.max_examples": 24})
    transcripts = list(read_transcripts(write_transcripts(tmp_path / "ada.jsonl")))
    dataset = build_dataset(transcripts, config=config.dataset, directory=tmp_path / "dataset")
    trainer = Trainer(base_directory, device="cuda")
    runs = [trainer.train(dataset, config, tmp_path / name) for name in ("one", "two")]
    first, second = ({path.name: path.read_bytes() for path in run.adapter_directory.iterdir()} for run in runs)
    assert first == second
