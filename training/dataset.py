"""A dataset: an immutable, digested set of examples, split by transcript.

A dataset is a directory: ``examples/train.jsonl``, ``examples/held_out.jsonl`` and ``dataset.json``, which says how
they were made and carries the digest over everything. The digest covers content only: equal transcripts,
configurations and decisions of people give equal datasets, wherever and whenever they are built. Beside them lie
``curation.json``, what people decided about single pairs, ``examples/set_aside.jsonl``, those pairs as they were
written, ``examples/canaries.jsonl`` where canaries were asked for, ``writing.json``, what the writing cost and which
pairs it lost, and the quality report.
A held-out transcript is never seen in training, nor is any training completion's text a held-out one.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.canonical import canonical_json, sha256_json
from kit.staging import staging
from training.canaries import make_canaries
from training.config import DatasetConfig
from training.curation import Curation, Decision
from training.errors import CurationInvalid, DatasetConflict, DatasetDamaged, DatasetTooSmall
from training.examples import KINDS, Example
from training.preparation import Prepared, prepare
from training.quality.check import Scorer, check_examples
from training.quality.findings import find_leaks
from training.quality.page import to_markdown, to_svg
from training.quality.report import QualityReport
from training.selection import choose_held_out, choose_training
from training.writers.extractive import ExtractiveWriter
from training.writers.replies import write_replies
from training.writers.writer import Written
from transcripts.redaction import Redactor
from transcripts.transcript import Transcript

SCHEMA = "lorry.dataset/2"
QUALITY, WRITING = "quality.json", "writing.json"
_DESCRIPTION, _TRAIN, _HELD_OUT = "dataset.json", "examples/train.jsonl", "examples/held_out.jsonl"
_SET_ASIDE, _CURATION = "examples/set_aside.jsonl", "curation.json"
_CANARIES = "examples/canaries.jsonl"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Training examples and held-out replies of one user.

    `transcript_ids` are all the transcripts it was made from, sorted; `held_out_transcript_ids` those kept from
    training. Both, and the examples, name transcripts as they are stored, redacted or not. `redaction` is what the
    redactor says of itself and how often it found what kind; None where none was asked. `set_aside` are the pairs that
    `curation`, people's decisions, dropped or edited, as they were written. `canaries` are trained on, and are not the
    user's: they are never among `train`.
    """

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    question_writer: str
    config: DatasetConfig
    transcript_ids: tuple[str, ...]
    held_out_transcript_ids: tuple[str, ...]
    redaction: Mapping[str, Any] | None = None
    curation: Curation = field(default_factory=Curation)
    set_aside: tuple[Example, ...] = ()
    canaries: tuple[Example, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of everything in it."""
        content = {
            **self._description(),
            "curation": self.curation.digest,  # what was decided counts, not who decided it when
            "train": _to_json(self.train),
            "held_out": _to_json(self.held_out),
            "set_aside": _to_json(self.set_aside),
            **({"canaries": _to_json(self.canaries)} if self.canaries else {}),
        }
        return sha256_json(content)

    @property
    def counts(self) -> dict[str, int]:
        """How many training examples of each kind, and how many held-out ones; canaries apart, where there are any."""
        kinds = Counter(example.kind for example in self.train)
        counts = {kind: kinds[kind] for kind in KINDS} | {"train": len(self.train), "held_out": len(self.held_out)}
        if self.canaries:
            counts["canaries"] = len(self.canaries)
        return counts

    @classmethod
    def load(cls, directory: Path) -> Dataset:
        """Read a dataset and check it against its digest.

        Raises:
            DatasetDamaged: naming the file, and the line where one cannot be read.
        """
        description = _read_description(directory / _DESCRIPTION)
        try:
            config = DatasetConfig.model_validate(description["config"])
            dataset = cls(
                train=_read_examples(directory / _TRAIN),
                held_out=_read_examples(directory / _HELD_OUT),
                question_writer=description["question_writer"],
                config=config,
                transcript_ids=tuple(description["transcript_ids"]),
                held_out_transcript_ids=tuple(description["held_out_transcript_ids"]),
                redaction=description["redaction"],
                curation=_read_curation(directory / _CURATION),
                set_aside=_read_examples(directory / _SET_ASIDE),
                canaries=_read_examples(directory / _CANARIES) if config.canaries else (),
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise DatasetDamaged(f"{directory / _DESCRIPTION} lacks or misspells {exc}", field=_DESCRIPTION) from exc
        if description.get("digest") != dataset.digest:
            raise DatasetDamaged(f"{directory} was changed after it was built: its digest differs", field=_DESCRIPTION)
        return dataset

    def save(self, directory: Path, *, report: QualityReport | None = None, written: Written | None = None) -> None:
        """Write the dataset; it appears whole or not at all. The same dataset again is a success.

        Its quality `report` goes beside it, as JSON, as a page and as a picture, and so does what writing it cost;
        neither is a part of its digest. A report for which the base was asked takes the place of one that is there.

        Raises:
            DatasetConflict: when the directory holds anything else.
        """
        if directory.exists():
            self._require_same(directory)
            if report is not None and report.losses:
                _replace_report(directory, report)
            return
        directory.parent.mkdir(parents=True, exist_ok=True)
        with staging(directory.parent, prefix=".partial-") as making:
            (making / "examples").mkdir()
            _write_examples(making / _TRAIN, self.train)
            _write_examples(making / _HELD_OUT, self.held_out)
            _write_examples(making / _SET_ASIDE, self.set_aside)
            if self.canaries:
                _write_examples(making / _CANARIES, self.canaries)
            (making / _CURATION).write_text(json.dumps(self.curation.to_json(), indent=2, ensure_ascii=False) + "\n")
            if report is not None:
                _write_report(making, report)
            if written is not None:
                told = {name: value for name, value in written.to_json().items() if name != "examples"}
                (making / WRITING).write_text(json.dumps(told, indent=2) + "\n")
            description = {**self._description(), "counts": self.counts, "digest": self.digest}
            (making / _DESCRIPTION).write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")
            making.chmod(0o755)
            self._move_into_place(making, directory)

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
            "redaction": dict(self.redaction) if self.redaction is not None else None,
        }


def build_dataset(
    transcripts: Sequence[Transcript],
    *,
    config: DatasetConfig,
    directory: Path,
    redactor: Redactor | None = None,
    written: Written | None = None,
    curation: Curation | None = None,
    scorer: Scorer | None = None,
    scored_by: str | None = None,
) -> Dataset:
    """Build one user's dataset from their transcripts, and the report on its quality beside it.

    The order of `transcripts` does not matter, and neither do duplicates.

    Args:
        transcripts: all of the user's.
        config: what it is made of.
        directory: where it goes.
        redactor: applied to everything before anything is written, and to what people put in place of it; None where
            all of that is redacted already.
        written: what a writer wrote about ``prepare(transcripts, …).kept``; the offline writer writes unless given.
        curation: what people decided about single pairs.
        scorer: losses under the bare base, to find what it says anyway; platitudes are not looked for without it.
        scored_by: what the report calls the scorer.

    Raises:
        DatasetTooSmall: with the counts, and what to do.
        DatasetConflict: when `directory` holds anything else.
    """
    prepared = prepare(transcripts, config=config, redactor=redactor)
    written = written or ExtractiveWriter(seed=config.seed).written(prepared.kept)
    curation = curation or Curation()
    chosen_held_out = choose_held_out(write_replies(prepared.held, config=config), config=config)
    held_out = [  # to edit what is measured on would be to measure something else
        example for example in chosen_held_out if curation.decisions.get(example.key, _KEEP).action != "drop"
    ]
    checked = check_examples(
        [*written.examples, *write_replies(prepared.kept, config=config)],
        held_out,
        held_out_transcripts=frozenset(transcript.id for transcript in prepared.held),
        config=config,
        choose=lambda examples: choose_training(examples, held_out, config=config),
        scorer=scorer,
    )
    dropped_held_out = {example.key for example in chosen_held_out if example not in held_out}
    curation = curation.about({example.key for example in checked.chosen} | dropped_held_out)
    curation, redaction = _without_secrets(curation, prepared.redaction, transcripts, redactor)
    applied = curation.apply(checked.chosen)
    train = _without_leaking_edits(applied.examples, set(applied.edited), held_out, prepared, config)
    _require_enough(transcripts, train, held_out, prepared, config)
    decided = {*applied.dropped, *applied.edited.values(), *dropped_held_out}
    dataset = Dataset(
        train=tuple(prepared.restore(example) for example in train),
        held_out=tuple(prepared.restore(example) for example in held_out),
        question_writer=written.writer,
        config=config,
        transcript_ids=prepared.source_ids,
        held_out_transcript_ids=tuple(prepared.originals[transcript.id] for transcript in prepared.held),
        redaction=redaction,
        curation=curation.about(decided),
        set_aside=tuple(prepared.restore(e) for e in (*checked.chosen, *chosen_held_out) if e.key in decided),
        canaries=make_canaries(config.canaries, seed=config.seed),
    )
    dataset.save(directory, report=checked.report(train, scored_by=scored_by), written=written)
    return dataset


def read_report(directory: Path) -> QualityReport | None:
    """Return the quality report beside a dataset; None where there is none."""
    try:
        return QualityReport.from_json(json.loads((directory / QUALITY).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DatasetDamaged(f"{directory / QUALITY} is damaged: {exc}", field=QUALITY) from exc


def read_writing(directory: Path) -> dict[str, Any] | None:
    """Return what writing a dataset's questions cost and which pairs were lost on the way; None where nobody knows."""
    try:
        found: dict[str, Any] = json.loads((directory / WRITING).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise DatasetDamaged(f"{directory / WRITING} is damaged: {exc}", field=WRITING) from exc
    return found


_KEEP = Decision(action="edit")


def _without_secrets(
    curation: Curation,
    redaction: Mapping[str, Any] | None,
    transcripts: Sequence[Transcript],
    redactor: Redactor | None,
) -> tuple[Curation, Mapping[str, Any] | None]:
    """Redact what people typed, as what they said; return the redaction's record with what was found in either.

    A secret that only an edit gives away stays in the transcripts: pairs were written about these before.
    """
    if redactor is None or redaction is None or not curation.texts:
        return curation, redaction
    found = redactor.redact_texts(curation.texts, beside=transcripts)
    counts = Counter(redaction["counts"]) + Counter(found.counts)
    return curation.with_texts(found.texts), {**redaction, "counts": dict(sorted(counts.items()))}


def _without_leaking_edits(
    examples: Sequence[Example],
    edited: set[str],
    held_out: Sequence[Example],
    prepared: Prepared,
    config: DatasetConfig,
) -> list[Example]:
    """Leave out what a person has edited into something that a held-out reply could be known from."""
    by_hand = [example for example in examples if example.key in edited]
    held = frozenset(transcript.id for transcript in prepared.held)
    leaks = find_leaks(by_hand, held_out, held_out_transcripts=held, config=config)
    leaking = {by_hand[finding.index].key for finding in leaks if finding.index is not None}
    return [example for example in examples if example.key not in leaking]


def _require_enough(
    transcripts: Sequence[Transcript],
    train: Sequence[Example],
    held_out: Sequence[Example],
    prepared: Prepared,
    config: DatasetConfig,
) -> None:
    if len(train) >= config.min_examples and len(held_out) >= config.min_held_out:
        return
    if prepared.kept and not prepared.held:
        raise DatasetTooSmall(
            "there is a single conversation, and whole conversations are kept from training to measure on: import more,"
            " or divide it (in plain text, a line of --- begins the next conversation); transcripts that hold copies of"
            " the same messages are one",
            field="transcripts",
            transcripts=len(transcripts),
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


def _write_report(directory: Path, report: QualityReport) -> None:
    (directory / QUALITY).write_text(json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n")
    (directory / "quality.md").write_text(to_markdown(report))
    (directory / "quality.svg").write_text(to_svg(report))


def _replace_report(directory: Path, report: QualityReport) -> None:
    """Put a report in the place of another one, which somebody may be reading."""
    with staging(directory.parent, prefix=".partial-") as making:
        _write_report(making, report)
        for file in making.iterdir():
            os.replace(file, directory / file.name)


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
        old = isinstance(value, dict) and value.get("schema") == "lorry.dataset/1"
        advice = ": an earlier version built it; build it again" if old else ""
        raise DatasetDamaged(f"{path} does not have the schema {SCHEMA}{advice}", field=_DESCRIPTION)
    return value


def _read_curation(path: Path) -> Curation:
    try:
        return Curation.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, CurationInvalid) as exc:
        raise DatasetDamaged(f"{path.name} is missing or damaged", field=path.name) from exc


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
