"""Stage 2: stored transcripts → an immutable dataset directory of one user."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kit.canonical import sha256_json
from kit.names import check_name
from lorry.context import Context
from lorry.errors import NotThere
from training.config import ResolvedConfig
from training.dataset import Dataset, build_dataset
from training.writers.extractive import ExtractiveWriter
from transcripts.store import TranscriptStore

CURRENT = "current"


async def build_user_dataset(
    context: Context, *, user: str, config: ResolvedConfig, directory: Path | None = None
) -> Dataset:
    """Build the user's dataset, or load it when these transcripts and this configuration gave it before.

    Without `directory` it goes to ``<home>/datasets/<tenant>/<user>/<key>``, and `current_dataset` finds it.

    Raises:
        NotThere: the user has no transcripts.
        DatasetTooSmall: too few examples, with counts and what to do.
    """
    check_name(user, field="user_id")
    async with context.database.transaction() as session:
        transcripts = await TranscriptStore(session).list(context.settings.tenant, user)
    if not transcripts:
        raise NotThere(f"{user} has no transcripts; import some with `lorry import {user} FILE`", field="user")
    if directory is not None:
        return await asyncio.to_thread(build_dataset, transcripts, config=config.dataset, directory=directory)
    folder = context.home.user_folder("datasets", tenant=context.settings.tenant, user=user)
    inputs = {
        "transcripts": [transcript.id for transcript in transcripts],
        "config": config.dataset.model_dump(mode="json"),
        "writer": ExtractiveWriter().name,
    }
    target = folder / sha256_json(inputs)[:16]
    if target.exists():
        dataset = await asyncio.to_thread(Dataset.load, target)
    else:
        dataset = await asyncio.to_thread(build_dataset, transcripts, config=config.dataset, directory=target)
    (folder / CURRENT).write_text(target.name)
    return dataset


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
