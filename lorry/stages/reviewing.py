"""Reviewing a user's dataset: what a person decides is kept, and the dataset built again with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorry.context import Context
from lorry.errors import NotThere
from lorry.stages.building import build_user_dataset, current_directory
from training.config import ResolvedConfig, TrainingConfig
from training.curation import Curation, Decision
from training.curations.repository import CurationRepository
from training.dataset import Dataset, read_report
from training.errors import CurationInvalid
from training.quality.report import QualityReport
from training.review import Pair, find_pair, pairs_of


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What is put in a pair's place; None leaves the question, or the answer, as it was written."""

    question: str | None = None
    completion: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """A user's current dataset as a person reviews it."""

    user: str
    dataset: Dataset
    directory: Path
    pairs: list[Pair]
    report: QualityReport | None


def open_review(context: Context, *, user: str) -> Reviewed:
    """Return the user's current dataset.

    Raises:
        NotThere: they have none.
    """
    directory = current_directory(context, user=user)
    if directory is None:
        raise NotThere(f"{user} has no dataset; make one with `lorry build-dataset {user}`", field="user")
    dataset = Dataset.load(directory)
    return Reviewed(
        user=user, dataset=dataset, directory=directory, pairs=pairs_of(dataset), report=read_report(directory)
    )


async def decide(
    context: Context,
    reviewed: Reviewed,
    *,
    drop: Sequence[str] = (),
    restore: Sequence[str] = (),
    edits: Mapping[str, Edit] | None = None,
) -> Reviewed:
    """Keep decisions, all or none, and build the dataset again with them.

    Raises:
        CurationInvalid: an id names no pair, an edit cannot be, or one pair is named twice.
        DatasetTooSmall: too little would be left; the decisions are taken back.
    """
    by = context.settings.actor
    changes: dict[str, Decision | None] = {}
    wanted = [(name, None, False) for name in restore]
    wanted += [(name, None, True) for name in drop]
    for name, change, drops in [*wanted, *((name, change, False) for name, change in (edits or {}).items())]:
        pair = find_pair(reviewed.pairs, name)
        if pair.id in changes:
            raise CurationInvalid(f"pair {pair.id} is named twice", field=name)
        changes[pair.id] = _decision(pair, change, by=by, drops=drops)
    before = await _keep(context, reviewed.user, changes)
    try:
        await build_user_dataset(context, user=reviewed.user, config=_config(reviewed.dataset))
    except Exception:  # whatever it was: the decisions and the current dataset belong together
        await _keep(context, reviewed.user, before)
        raise
    return open_review(context, user=reviewed.user)


def _decision(pair: Pair, change: Edit | None, *, by: str, drops: bool = False) -> Decision | None:
    """Return what is decided about a pair: an edit, a drop, or None to take a decision back."""
    if drops:
        return Curation().with_drop(pair.id, by=by).decisions[pair.id]
    if change is None:
        if pair.decision is None:
            raise CurationInvalid(f"nothing was decided about pair {pair.id}", field=pair.id)
        return None
    if pair.status == "held_out":
        raise CurationInvalid("a held-out reply can be dropped, not edited: it is what is measured on", field=pair.id)
    edited = Curation().with_edit(pair.written, question=change.question, completion=change.completion, by=by)
    return edited.decisions[pair.id]


async def _keep(context: Context, user: str, changes: Mapping[str, Decision | None]) -> dict[str, Decision | None]:
    """Keep decisions and return what there was before about the same pairs."""
    tenant = context.settings.tenant
    async with context.database.transaction() as session:
        repository = CurationRepository(session)
        before = (await repository.get(tenant=tenant, user=user)).decisions
        for key, decision in changes.items():
            if decision is None:
                await repository.remove(key, tenant=tenant, user=user)
            else:
                await repository.put(key, decision, tenant=tenant, user=user)
    return {key: before.get(key) for key in changes}


def _config(dataset: Dataset) -> ResolvedConfig:
    return ResolvedConfig(training=TrainingConfig(), dataset=dataset.config, origins={})
