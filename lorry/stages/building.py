"""Stage 2: stored transcripts → an immutable dataset directory of one user."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kit.canonical import sha256_json
from kit.names import check_name
from lorry.context import Context
from lorry.errors import NotThere
from lorry.stages.writing import OnWriting, write_questions
from training.config import ResolvedConfig
from training.curation import Curation
from training.curations.repository import CurationRepository
from training.dataset import Dataset, build_dataset
from training.preparation import prepare
from training.writers.cost import Cost
from training.writers.factory import make_writer
from training.writers.settings import WriterSettings
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
) -> Dataset:
    """Build the user's dataset, or load it when the same transcripts, decisions and settings gave it before.

    Without `directory` it goes to ``<home>/datasets/<tenant>/<user>/<key>``, and `current_dataset` finds it.
    `on_writing` is told (requests answered, of) while a remote writer works.

    Raises:
        NotThere: the user has no transcripts.
        DatasetTooSmall: too few examples, with counts and what to do.
        WriterError: a remote writer could not write.
    """
    transcripts, curation = await _stored(context, user=user)
    settings = WriterSettings.read()
    redactor = settings.redactor()
    folder = context.home.user_folder("datasets", tenant=context.settings.tenant, user=user)
    target = directory or folder / _key(transcripts, config, settings, redactor, curation)
    if directory is None and target.exists():
        dataset = await asyncio.to_thread(Dataset.load, target)
    else:
        prepared = await asyncio.to_thread(prepare, transcripts, config=config.dataset, redactor=redactor)
        written = await write_questions(
            prepared.kept,
            settings=settings,
            config=config.dataset,
            folder=folder / "writing",
            on_progress=on_writing,
        )
        dataset = await asyncio.to_thread(
            build_dataset,
            transcripts,
            config=config.dataset,
            directory=target,
            redactor=redactor,
            written=written,
            curation=curation,
        )
    if directory is None:
        (folder / CURRENT).write_text(target.name)
    return dataset


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


def _key(
    transcripts: list[Transcript],
    config: ResolvedConfig,
    settings: WriterSettings,
    redactor: Redactor | None,
    curation: Curation,
) -> str:
    """Return the name of what comes out of these inputs."""
    inputs = {
        "transcripts": [transcript.id for transcript in transcripts],
        "config": config.dataset.model_dump(mode="json"),
        "writer": make_writer(settings, config.dataset).name,
        "redaction": redactor.record() if redactor else None,
        "curation": curation.digest,
    }
    return sha256_json(inputs)[:16]


def current_dataset(context: Context, *, user: str) -> Dataset | None:
    """Return the dataset that was built last for the user, or None when there is none."""
    directory = current_directory(context, user=user)
    return Dataset.load(directory) if directory else None


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
