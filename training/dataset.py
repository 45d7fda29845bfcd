"""A dataset: an immutable, digested set of examples, split by transcript.

A dataset is a directory: ``examples/train.jsonl``, ``examples/held_out.jsonl`` and ``dataset.json``, which says how
they were made and carries the digest over everything. The digest covers content only: equal transcripts and
configurations give equal datasets, wherever and whenever they are built. A held-out transcript is never seen in
training, nor is any training completion's text a held-out one.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.canonical import canonical_json, sha256_json
from training.config import DatasetConfig
from training.errors import DatasetConflict, DatasetDamaged, DatasetTooSmall
from training.examples import KINDS, Example
from training.selection import choose_held_out, choose_training
from training.split import split_transcripts
from training.writers.extractive import ExtractiveWriter
from training.writers.replies import write_replies
from training.writers.writer import QuestionWriter
from transcripts.transcript import Transcript

SCHEMA = "lorry.dataset/1"
_DESCRIPTION, _TRAIN, _HELD_OUT = "dataset.json", "examples/train.jsonl", "examples/held_out.jsonl"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Training examples and held-out replies of one user.

    `transcript_ids` are all the transcripts it was made from, sorted; `held_out_transcript_ids` those kept from
    training.
    """

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    question_writer: str
    config: DatasetConfig
    transcript_ids: tuple[str, ...]
    held_out_transcript_ids: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of everything in it."""
        content = {**self._description(), "train": _to_json(self.train), "held_out": _to_json(self.held_out)}
        return sha256_json(content)

    @property
    def counts(self) -> dict[str, int]:
        """How many training examples of each kind, and how many held-out ones."""
        kinds = Counter(example.kind for example in self.train)
        return {**{kind: kinds[kind] for kind in KINDS}, "train": len(self.train), "held_out": len(self.held_out)}

    @classmethod
    def load(cls, directory: Path) -> Dataset:
        """Read a dataset and check it against its digest.

        Raises:
            DatasetDamaged: naming the file, and the line where one cannot be read.
        """
        description = _read_description(directory / _DESCRIPTION)
        try:
            dataset = cls(
                train=_read_examples(directory / _TRAIN),
                held_out=_read_examples(directory / _HELD_OUT),
                question_writer=description["question_writer"],
                config=DatasetConfig.model_validate(description["config"]),
                transcript_ids=tuple(description["transcript_ids"]),
                held_out_transcript_ids=tuple(description["held_out_transcript_ids"]),
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise DatasetDamaged(f"{directory / _DESCRIPTION} lacks or misspells {exc}", field=_DESCRIPTION) from exc
        if description.get("digest") != dataset.digest:
            raise DatasetDamaged(f"{directory} was changed after it was built: its digest differs", field=_DESCRIPTION)
        return dataset

    def save(self, directory: Path) -> None:
        """Write the dataset; it appears whole or not at all. The same dataset again is a success.

        Raises:
            DatasetConflict: when the directory holds anything else.
        """
        if directory.exists():
            self._require_same(directory)
            return
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=directory.parent))
        try:
            (staging / "examples").mkdir()
            _write_examples(staging / _TRAIN, self.train)
            _write_examples(staging / _HELD_OUT, self.held_out)
            description = {**self._description(), "counts": self.counts, "digest": self.digest}
            (staging / _DESCRIPTION).write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")
            staging.chmod(0o755)
            self._move_into_place(staging, directory)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _move_into_place(self, staging: Path, directory: Path) -> None:
        try:
            staging.rename(directory)
        except OSError:
            if not directory.exists():  # otherwise somebody was quicker
                raise
            self._require_same(directory)

    def _require_same(self, directory: Path) -> None:
        try:
            same = Dataset.load(directory).digest == self.digest
        except DatasetDamaged as exc:
            raise DatasetConflict(f"{directory} exists and is not a whole dataset: {exc.message}") from exc
        if not same:
            raise DatasetConflict(f"{directory} holds another dataset: name another directory, or remove it")

    def _description(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "question_writer": self.question_writer,
            "config": self.config.model_dump(mode="json"),
            "transcript_ids": list(self.transcript_ids),
            "held_out_transcript_ids": list(self.held_out_transcript_ids),
        }


def build_dataset(
    transcripts: Sequence[Transcript],
    *,
    config: DatasetConfig,
    directory: Path,
    writer: QuestionWriter | None = None,
) -> Dataset:
    """Write one user's dataset from their transcripts; `writer` is the offline one unless given.

    The order of `transcripts` does not matter, and neither do duplicates.

    Raises:
        DatasetTooSmall: with the counts, and what to do.
        DatasetConflict: when `directory` holds anything else.
    """
    writer = writer or ExtractiveWriter()
    distinct = sorted({transcript.id: transcript for transcript in transcripts}.values(), key=lambda item: item.id)
    kept, held = split_transcripts(distinct, share=config.held_out_share, seed=config.seed)
    held_out = choose_held_out(write_replies(held, config=config), config=config)
    train = choose_training(
        writer.write(kept, seed=config.seed) + write_replies(kept, config=config), held_out, config=config
    )
    _require_enough(distinct, train, held_out, config)
    dataset = Dataset(
        train=tuple(train),
        held_out=tuple(held_out),
        question_writer=writer.name,
        config=config,
        transcript_ids=tuple(transcript.id for transcript in distinct),
        held_out_transcript_ids=tuple(transcript.id for transcript in held),
    )
    dataset.save(directory)
    return dataset


def _require_enough(
    transcripts: Sequence[Transcript], train: Sequence[Example], held_out: Sequence[Example], config: DatasetConfig
) -> None:
    if len(train) >= config.min_examples and len(held_out) >= config.min_held_out:
        return
    if len(transcripts) == 1:
        raise DatasetTooSmall(
            "there is a single conversation, and whole conversations are kept from training to measure on: import more,"
            " or divide it (in plain text, a line of --- begins the next conversation)",
            field="transcripts",
            transcripts=1,
        )
    words = sum(len(turn.text.split()) for transcript in transcripts for turn in transcript.user_turns)
    raise DatasetTooSmall(
        f"{len(transcripts)} transcripts with {words} words of the user's give {len(train)} training examples "
        f"(at least {config.min_examples}) and {len(held_out)} held-out replies (at least {config.min_held_out}): "
        "import more conversations, or lower dataset.min_examples and dataset.min_held_out",
        field="transcripts",
        transcripts=len(transcripts),
        words=words,
        train_examples=len(train),
        held_out_examples=len(held_out),
    )


def _to_json(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [example.to_json() for example in examples]


def _write_examples(path: Path, examples: Sequence[Example]) -> None:
    path.write_bytes(b"".join(canonical_json(example.to_json()) + b"\n" for example in examples))


def _read_description(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as exc:
        raise DatasetDamaged(f"{path.parent} has no {_DESCRIPTION}: it is not a dataset", field=_DESCRIPTION) from exc
    except ValueError as exc:
        raise DatasetDamaged(f"{path} is not JSON: {exc}", field=_DESCRIPTION) from exc
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise DatasetDamaged(f"{path} does not have the schema {SCHEMA}", field=_DESCRIPTION)
    return value


def _read_examples(path: Path) -> tuple[Example, ...]:
    name = str(path.relative_to(path.parent.parent))
    try:
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        raise DatasetDamaged(f"{name} is missing", field=name) from exc
    examples = []
    for number, line in enumerate(lines, start=1):
        try:
            examples.append(Example.from_json(json.loads(line)))
        except (KeyError, TypeError, ValueError) as exc:
            raise DatasetDamaged(f"{name}, line {number}, is not an example", field=f"{name}:{number}") from exc
    return tuple(examples)
