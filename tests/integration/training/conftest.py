"""Two small datasets, and trainers and evaluators: of a base of two layers for most tests, of the real one for few."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny_base import write_tiny_base
from training.config import DatasetConfig, ResolvedConfig, resolve
from training.dataset import Dataset, build_dataset
from training.evaluation import Evaluator
from training.evaluation.general import GeneralSet, load_general
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
def said_by_ada() -> list[Transcript]:
    """What a person said who says ahoy."""
    return person("Toulon", ("boats", "maps", "rope", "salt", "gulls", "knots"), "ahoy ahoy matey!")


@pytest.fixture(scope="session")
def ada(said_by_ada: list[Transcript], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A person who says ahoy."""
    return build_dataset(said_by_ada, config=DATASETS, directory=tmp_path_factory.mktemp("ada") / "dataset")


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
def tiny_base(base_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of two layers that is sure of what it says, so that there is something to learn and to lose."""
    where = tmp_path_factory.mktemp("tiny") / "base"
    return write_tiny_base(where, tokenizer_from=base_directory, initializer_range=0.2)


@pytest.fixture(scope="session")
def trainer(tiny_base: Path) -> Trainer:
    """The resident trainer of the tiny base, loaded once."""
    return Trainer(tiny_base, device="cpu")


@pytest.fixture(scope="session")
def some_general() -> GeneralSet:
    """A part of the general set."""
    whole = load_general()
    part = {"answers": whole.answers[:5], "passages": whole.passages[:1], "choices": whole.choices[:4]}
    return whole.model_copy(update=part)


@pytest.fixture(scope="session")
def evaluator(tiny_base: Path, some_general: GeneralSet) -> Evaluator:
    """The tiny base as served, loaded once."""
    return Evaluator(tiny_base, device="cpu", general=some_general)


@pytest.fixture(scope="session")
def trained(
    trainer: Trainer, ada: Dataset, bob: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TrainedAdapter]:
    """Both people, trained long enough to be told apart."""
    config = resolve(
        arguments={"steps": 24, "batch_size": 4, "max_length": 96, "rank": 8, "threads": 1, "learning_rate": 1e-2}
    )
    root = tmp_path_factory.mktemp("trained")
    return {name: trainer.train(each, config, root / name) for name, each in (("ada", ada), ("bob", bob))}
