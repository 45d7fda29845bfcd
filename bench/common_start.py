"""What people of `chitchat-dataset` have in common: an adapter taught by those whom no benchmark measures.

A training may begin with it (`start`, docs/training.md). Conversations in which one of those speaks are left out whole,
so that nothing they said, and nothing that was said to them, is in it.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from training.config import ResolvedConfig, resolve
from training.dataset import Dataset, build_dataset
from training.trainer import OnProgress, TrainedAdapter, Trainer
from transcripts.formats.chitchat import dataset_path, people
from transcripts.importer import read_transcripts
from transcripts.redaction import RedactionSettings, Redactor
from transcripts.transcript import Transcript

NAME: Final = "shared/common@1"
# No statements about anybody, many people's replies, larger and smaller steps than for one person's few.
SETTINGS: Final[dict[str, Any]] = {
    "dataset.statement_share": 0.0,
    "dataset.negative_share": 0.0,
    "dataset.held_out_share": 0.02,
    "dataset.max_examples": 2400,
    "dataset.on_leak": "ignore",  # "lol" is said by everybody
    "batch_size": 8,
    "learning_rate": 5e-4,
}
_MIN_WORDS = 100
_TURNS_EACH = 40


def common_config(**settings: Any) -> ResolvedConfig:
    """Return how it is taught; `settings` change that, as a quick run does."""
    return resolve(arguments={**SETTINGS, "threads": 1, **settings})


def build_common_dataset(directory: Path, *, without: Collection[str], config: ResolvedConfig) -> Dataset:
    """Return replies of everybody else, of each person those of whole conversations of about 40 turns in all."""
    if directory.exists():
        return Dataset.load(directory)
    with tempfile.TemporaryDirectory() as scratch:
        transcripts = [*_talks(Path(scratch), without=without)]
    return build_dataset(
        transcripts, config=config.dataset, directory=directory, redactor=Redactor(RedactionSettings())
    )


def train_common(
    trainer: Trainer, dataset: Dataset, config: ResolvedConfig, directory: Path, on_progress: OnProgress
) -> TrainedAdapter:
    """Return the adapter, trained where it is missing; one that was stopped goes on."""
    if directory.exists():
        return TrainedAdapter.load(directory)
    checkpoints = directory.with_name(f".{directory.name}.checkpoints")
    return trainer.train(dataset, config, directory, on_progress, checkpoints=checkpoints)


def _talks(scratch: Path, *, without: Collection[str]) -> Iterator[Transcript]:
    """Yield some whole conversations of each person, chosen by their id."""
    spoken = json.loads(dataset_path().read_bytes())
    everybody = {name: each for name, each in spoken.items() if _speakers(each).isdisjoint(without)}
    path = scratch / "talks.json"
    path.write_text(json.dumps(everybody))
    for person in people(min_conversations=1, min_words=_MIN_WORDS, path=path):
        who = person.sender_id
        path.write_text(json.dumps({name: each for name, each in everybody.items() if who in _speakers(each)}))
        theirs = [*read_transcripts(path, format="chitchat", user_speaker=who)]
        random.Random(who).shuffle(theirs)
        turns = 0
        for transcript in theirs:
            if turns >= _TURNS_EACH:
                break
            turns += len(transcript.user_turns)
            yield transcript


def _speakers(conversation: Any) -> set[str]:
    return {message["sender"] for burst in conversation["messages"] for message in burst}
