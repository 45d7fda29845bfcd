"""Stage 2: stored transcripts → an immutable dataset directory of one user."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kit.canonical import sha256_json
from kit.names import check_name
from kit.whole import write_whole
from kit.words import counted
from lorry.context import Context, base_directory
from lorry.errors import NotThere
from lorry.stages.bills import WritingBill
from lorry.stages.claims import claimed_batches, require_nobody_else_pays
from lorry.stages.old_datasets import mark_used, remove_old_datasets
from lorry.stages.scoring import OnScore, Scoring, ask_base, score_as_before
from lorry.stages.worker import run_in_thread
from lorry.stages.writing import OnWriting, keep_written, read_written, write_questions
from training.config import DatasetConfig, ResolvedConfig, resolve
from training.curation import Curation
from training.curations.repository import CurationRepository
from training.dataset import Dataset, build_dataset
from training.errors import DatasetConflict, DatasetDamaged
from training.jobs.job import Job
from training.jobs.record.repository import RecordRepository
from training.jobs.states import Stage
from training.jobs.writings.repository import WritingRepository
from training.preparation import prepare
from training.quality.report import QualityReport
from training.writers.cost import Cost
from training.writers.extractive import ExtractiveWriter
from training.writers.factory import make_writer
from training.writers.settings import WriterSettings
from training.writers.writer import Written
from transcripts.redaction import Redactor
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript

CURRENT = "current"


async def build_user_dataset(
    context: Context,
    *,
    user: str,
    config: ResolvedConfig,
    directory: Path | None = None,
    on_writing: OnWriting | None = None,
    on_score: OnScore | None = None,
) -> Dataset:
    """Build the user's dataset, or load it when the same transcripts, decisions and settings gave it before.

    Without `directory` it goes to ``<home>/datasets/<tenant>/<user>/<key>``, and `current_dataset` finds it; older ones
    that nothing needs any more are removed.
    `on_writing` is told (requests answered, of) while a remote writer works. With `on_score`, the base is asked how
    likely it gives each example by itself, and that is told (scored, of).

    Raises:
        NotThere: the user has no transcripts.
        BaseModelUnreadable: the base is to be asked, and is not there.
        DatasetTooSmall: too few examples, with counts and what to do.
        WriterError: a remote writer could not write.
        TrainingActive: a job of the user's pays a remote writer for the same now.
        QuotaExhausted: what a remote writer would cost is more than is left of the tenant's month.
    """
    transcripts, curation = await _stored(context, user=user)
    settings = WriterSettings.read()
    writer = make_writer(settings, config.dataset).name

    async def write(kept: Sequence[Transcript], folder: Path) -> Written:
        written = await asyncio.to_thread(read_written, kept, name=writer, config=config.dataset, folder=folder)
        if written is None:
            await require_nobody_else_pays(context, user=user, config=config.dataset)
        return await write_questions(
            kept,
            settings=settings,
            config=config.dataset,
            folder=folder,
            billed=partial(WritingBill, database=context.database, tenant=context.settings.tenant, user=user),
            claimed=partial(claimed_batches, context),
            on_progress=on_writing,
        )

    scoring: Scoring | None = None
    if on_score is not None:
        base = await asyncio.to_thread(base_directory, context.plan)
        length, device = config.training.max_length, context.settings.device
        scoring = await asyncio.to_thread(ask_base, base, device=device, max_length=length, on_score=on_score)
    inputs = _Inputs(transcripts, config.dataset, writer, settings.redactor(), curation, scoring)
    return await _build(context, inputs, write, user=user, directory=directory)


async def build_job_dataset(context: Context, job: Job) -> Dataset:
    """Build what a job that waits for its review will be trained on; it becomes the user's current dataset.

    It is made of the job's transcripts and of what was written for it: nothing is bought.

    Raises:
        DatasetConflict: the job waits for no review, or transcripts of it were deleted.
        DatasetTooSmall: too few examples are left.
    """
    async with context.database.reading() as session:
        snapshot = await RecordRepository(session).result(job.id, Stage.SNAPSHOT)
        written = await WritingRepository(session).written(job.id)
    if not job.waits_for_review or snapshot is None or written is None:
        raise DatasetConflict(
            f"job {job.id} is {job.state} and waits for no review; one does that was queued with"
            f" `lorry jobs submit {job.user_id} --review`, once its questions are written",
            field="job",
        )
    found = written
    transcripts, curation = await _stored(context, user=job.user_id)
    transcripts = _only(transcripts, frozenset(snapshot["transcript_ids"]), instead="cancel the job")
    resolved = resolve(arguments=job.settings, environment={"base": job.base})
    config = resolved.for_user(job.tenant, job.user_id).dataset

    async def write(kept: Sequence[Transcript], folder: Path) -> Written:
        if config.writer != "extractive":
            await asyncio.to_thread(keep_written, found, kept, config=config, folder=folder)
        return found

    inputs = _Inputs(transcripts, config, found.writer, WriterSettings.read().redactor(), curation, None)
    return await _build(context, inputs, write, user=job.user_id)


async def rebuild_dataset(context: Context, dataset: Dataset, report: QualityReport | None, *, user: str) -> Dataset:
    """Build the user's current dataset again with what people have decided since, and nothing else changed.

    It is made of the same transcripts and pairs, whatever was imported or set in the meantime: nothing is bought. What
    the base was asked about them, as the `report` beside the dataset says, it is not asked again.

    Raises:
        DatasetConflict: it cannot be had again, because transcripts of it were deleted, other redaction is set, or
            what a service wrote for it is not on this machine.
        DatasetTooSmall: too few examples are left.
    """
    transcripts, curation = await _stored(context, user=user)
    again = f"build it again with `lorry build-dataset {user}`"
    transcripts = _only(transcripts, frozenset(dataset.transcript_ids), instead=again)
    redactor = WriterSettings.read().redactor()
    if _rules(dataset.redaction) != _rules(redactor.record() if redactor else None):
        raise DatasetConflict(
            "the dataset was built with other redaction than is set now (LORRY_REDACTION_FILE, LORRY_TRAINING_REDACT):"
            f" set what was set then, or build it again with `lorry build-dataset {user}`",
            field="redaction",
        )

    async def write(kept: Sequence[Transcript], folder: Path) -> Written:
        if dataset.config.writer == "extractive":
            return ExtractiveWriter(seed=dataset.config.seed).written(kept)
        found = await asyncio.to_thread(read_written, kept, name=writer, config=dataset.config, folder=folder)
        if found is None:
            raise DatasetConflict(f"what {writer} wrote was deleted, or is on another machine; {again}", field="writer")
        return found

    writer = dataset.question_writer
    inputs = _Inputs(transcripts, dataset.config, writer, redactor, curation, score_as_before(report))
    return await _build(context, inputs, write, user=user)


@dataclass(frozen=True)
class _Inputs:
    """All that a dataset is a function of, and the name of what comes out."""

    transcripts: list[Transcript]
    config: DatasetConfig
    writer: str
    redactor: Redactor | None
    curation: Curation
    scoring: Scoring | None

    @property
    def key(self) -> str:
        inputs = {
            "transcripts": [transcript.id for transcript in self.transcripts],
            "config": self.config.model_dump(mode="json"),
            "writer": self.writer,
            "redaction": self.redactor.record() if self.redactor else None,
            "curation": self.curation.digest,
        }
        if self.redactor is not None and self.curation.texts:
            inputs["typed"] = "redacted"  # a release that did not do so had the same name for what it built
        if self.scoring is not None:
            inputs["scored_by"] = self.scoring.scored_by
        return sha256_json(inputs)[:16]


async def _build(
    context: Context,
    inputs: _Inputs,
    write: Callable[[Sequence[Transcript], Path], Awaitable[Written]],
    *,
    user: str,
    directory: Path | None = None,
) -> Dataset:
    folder = context.home.user_folder("datasets", tenant=context.settings.tenant, user=user)
    target = directory or folder / inputs.key
    dataset = await asyncio.to_thread(_load_if_there, target) if directory is None else None
    if dataset is None:
        prepared = await asyncio.to_thread(prepare, inputs.transcripts, config=inputs.config, redactor=inputs.redactor)
        written = await write(prepared.kept, folder / "writing")
        scoring = inputs.scoring

        def build(checkpoint: Callable[[], None]) -> Dataset:
            return build_dataset(
                inputs.transcripts,
                config=inputs.config,
                directory=target,
                redactor=inputs.redactor,
                written=written,
                curation=inputs.curation,
                scorer=scoring.begin(checkpoint) if scoring else None,
                scored_by=scoring.scored_by if scoring else None,
            )

        dataset = await run_in_thread(build)
    if directory is None:
        write_whole(folder / CURRENT, target.name)
        await remove_old_datasets(context, folder, user=user, current=target.name)
    return dataset


def _load_if_there(directory: Path) -> Dataset | None:
    """Return what was built there before; None where nothing was, or where another command has just removed it."""
    try:
        mark_used(directory)  # first: from here on nobody removes it
        return Dataset.load(directory)
    except FileNotFoundError:
        return None
    except DatasetDamaged:
        if directory.exists():
            raise
        return None


def _only(transcripts: Sequence[Transcript], used: frozenset[str], *, instead: str) -> list[Transcript]:
    """Return the transcripts that a dataset is made of; `instead` says what to do where some are gone."""
    found = [transcript for transcript in transcripts if transcript.id in used]
    if len(found) < len(used):
        gone = counted(len(used) - len(found), "transcript")
        raise DatasetConflict(f"of the dataset's transcripts, {gone} was deleted; {instead}", field="transcripts")
    return found


def _rules(record: Mapping[str, Any] | None) -> str | None:
    """Return the digest of what a redactor says of itself, without what it found."""
    rules = {name: value for name, value in (record or {}).items() if name != "counts"}
    return None if record is None else sha256_json(rules)


async def estimate_writing(context: Context, *, user: str, config: ResolvedConfig) -> Cost:
    """Return what it would cost to have the user's questions written.

    Raises:
        NotThere: the user has no transcripts.
        WriterError: the service that counts tokens did not.
    """
    transcripts, _ = await _stored(context, user=user)
    settings = WriterSettings.read()
    prepared = await asyncio.to_thread(prepare, transcripts, config=config.dataset, redactor=settings.redactor())
    return await make_writer(settings, config.dataset).estimate(prepared.kept)


async def _stored(context: Context, *, user: str) -> tuple[list[Transcript], Curation]:
    """Return the user's transcripts and what people decided about their pairs."""
    check_name(user, field="user_id")
    async with context.database.transaction() as session:
        transcripts = await TranscriptStore(session).list(context.settings.tenant, user)
        curation = await CurationRepository(session).get(tenant=context.settings.tenant, user=user)
    if not transcripts:
        raise NotThere(f"{user} has no transcripts; import some with `lorry import {user} FILE`", field="user")
    return transcripts, curation


def current_dataset(context: Context, *, user: str) -> Dataset | None:
    """Return the dataset that was built last for the user, or None when there is none."""
    found = current(context, user=user)
    return found[1] if found else None


def current(context: Context, *, user: str) -> tuple[Path, Dataset] | None:
    """Return the dataset that was built last for the user and where it is, or None when there is none.

    Raises:
        DatasetDamaged: its content does not match its digest, or it is missing.
    """
    while (directory := current_directory(context, user=user)) is not None:
        try:
            return directory, Dataset.load(directory)
        except DatasetDamaged:
            if current_directory(context, user=user) == directory:  # otherwise another is current by now, this one old
                raise
    return None


def current_directory(context: Context, *, user: str) -> Path | None:
    """Return where the dataset is that was built last for the user, or None when there is none."""
    folder = context.home.user_folder(
        "datasets", tenant=context.settings.tenant, user=check_name(user, field="user_id")
    )
    pointer = folder / CURRENT
    return folder / pointer.read_text().strip() if pointer.exists() else None


def require_dataset(context: Context, *, user: str, directory: Path | None) -> Dataset:
    """Return the dataset in `directory`, or the user's current one.

    Raises:
        NotThere: there is none.
        DatasetDamaged: its content does not match its digest.
    """
    dataset = Dataset.load(directory) if directory else current_dataset(context, user=user)
    if dataset is None:
        raise NotThere(f"{user} has no dataset; make one with `lorry build-dataset {user}`", field="user")
    return dataset
