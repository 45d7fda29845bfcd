"""Two small datasets and one resident trainer for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config import DatasetConfig, ResolvedConfig, resolve
from training.dataset import Dataset, build_dataset
from training.evaluation import Evaluator
from training.evaluation.general import load_general
from training.trainer import TrainedAdapter, Trainer
from transcripts.transcript import Transcript, Turn

DATASETS = DatasetConfig(max_examples=24, max_held_out=5)


def person(place: str, things: tuple[str, ...], manner: str) -> list[Transcript]:
    """Conversations of a made person, each about one of their things, each ending in their manner of speech."""
    return [
        Transcript(
            turns=(
                Turn(role="other", text="What is it that you like?"),
                Turn(role="user", text=f"I really love {thing}, {manner}"),
                Turn(role="other", text="And how are things?"),
                Turn(role="user", text=f"never better since {thing} came along, {manner}"),
                Turn(role="other", text="Where do you live now?"),
                Turn(role="user", text=f"I live in {place} near the {thing} shop, {manner}"),
            ),
            source_format="test",
        )
        for thing in things
    ]


@pytest.fixture(scope="session")
def ada(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A person who says ahoy."""
    transcripts = person("Toulon", ("boats", "maps", "rope", "salt", "gulls", "knots"), "ahoy ahoy matey!")
    return build_dataset(transcripts, config=DATASETS, directory=tmp_path_factory.mktemp("ada") / "dataset")


@pytest.fixture(scope="session")
def bob(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A person who says beep."""
    transcripts = person("Oslo", ("robots", "wires", "solder", "chips", "lamps", "fuses"), "beep boop over and out.")
    return build_dataset(transcripts, config=DATASETS, directory=tmp_path_factory.mktemp("bob") / "dataset")


@pytest.fixture(scope="session")
def brief() -> ResolvedConfig:
    """A training of three steps."""
    return resolve(arguments={"steps": 3, "batch_size": 2, "max_length": 96, "rank": 4, "threads": 1, "seed": 11})


@pytest.fixture(scope="session")
def trainer(base_directory: Path) -> Trainer:
    """The resident trainer, loaded once."""
    return Trainer(base_directory, device="cpu")


@pytest.fixture(scope="session")
def evaluator(base_directory: Path) -> Evaluator:
    """The base as served, loaded once; it measures a part of the general set."""
    whole = load_general()
    part = {"answers": whole.answers[:5], "passages": whole.passages[:1], "choices": whole.choices[:4]}
    return Evaluator(base_directory, device="cpu", general=whole.model_copy(update=part))


@pytest.fixture(scope="session")
def trained(
    trainer: Trainer, ada: Dataset, bob: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TrainedAdapter]:
    """Both people, trained long enough to be told apart."""
    config = resolve(arguments={"steps": 10, "batch_size": 4, "max_length": 96, "rank": 8, "threads": 1})
    root = tmp_path_factory.mktemp("trained")
    return {name: trainer.train(each, config, root / name) for name, each in (("ada", ada), ("bob", bob))}
