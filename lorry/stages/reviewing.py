"""Reviewing a user's dataset: what a person decides is kept, and the dataset built again with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorry.context import Context
from lorry.errors import NotThere
from lorry.stages.building import build_job_dataset, current, rebuild_dataset
from training.curation import Curation, Decision
from training.curations.repository import CurationRepository
from training.dataset import Dataset, read_report
from training.errors import CurationInvalid
from training.jobs.errors import JobNotFound
from training.jobs.jobs import Jobs
from training.quality.report import QualityReport
from training.review import MIN_ID, Pair, find_pair, pairs_of


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
    found = current(context, user=user)
    if found is None:
        raise NotThere(f"{user} has no dataset; make one with `lorry build-dataset {user}`", field="user")
    directory, dataset = found
    report = read_report(directory)
    return Reviewed(user=user, dataset=dataset, directory=directory, pairs=pairs_of(dataset, report), report=report)


async def open_job_review(context: Context, *, user: str, job_id: str) -> Reviewed:
    """Return the dataset that the user's job will be trained on, which becomes the current one.

    Raises:
        JobNotFound: the user has no such job.
        DatasetConflict, DatasetTooSmall: see `build_job_dataset`.
    """
    job = await Jobs(context.database).get(job_id, tenant=context.settings.tenant)
    if job.user_id != user:
        raise JobNotFound(f"{user} has no training job {job_id[:64]!r}; `lorry jobs --user {user}` lists theirs")
    await build_job_dataset(context, job)
    return open_review(context, user=user)


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
        DatasetConflict: the dataset cannot be built again as it was; the decisions are taken back.
    """
    by = context.settings.actor
    stored = await _stored(context, reviewed.user)
    wanted: list[tuple[str, str, Decision | None]] = [(name, _decided(stored, name), None) for name in restore]
    for name, change in [*((name, None) for name in drop), *(edits or {}).items()]:
        pair = find_pair(reviewed.pairs, name)
        wanted.append((name, pair.id, _decision(pair, change, by=by)))
    changes: dict[str, Decision | None] = {}
    for name, key, decision in wanted:
        if key in changes:
            raise CurationInvalid(f"pair {key} is named twice", field=name)
        changes[key] = decision
    before = await _keep(context, reviewed.user, changes)
    try:
        await _rebuild(context, reviewed)
    except Exception:  # whatever it was: the decisions and the current dataset belong together
        await _keep(context, reviewed.user, before, instead_of=changes)
        raise
    return open_review(context, user=reviewed.user)


async def _rebuild(context: Context, reviewed: Reviewed) -> None:
    """Build the dataset again until it has everything that was decided: others may review the same user."""
    while True:
        decided = (await _stored(context, reviewed.user)).digest
        await rebuild_dataset(context, reviewed.dataset, reviewed.report, user=reviewed.user)
        if (await _stored(context, reviewed.user)).digest == decided:
            return


async def _stored(context: Context, user: str) -> Curation:
    async with context.database.reading() as session:
        return await CurationRepository(session).get(tenant=context.settings.tenant, user=user)


def _decided(stored: Curation, name: str) -> str:
    """Return the key of a decision, also of one about a pair that the current dataset does not have."""
    found = [key for key in stored.decisions if len(name) >= MIN_ID and key.startswith(name)]
    if len(found) != 1:
        how_many = "nothing was decided about a pair" if not found else f"{len(found)} decisions are about pairs"
        raise CurationInvalid(f"{how_many} whose id begins with {name!r}", field=name)
    return found[0]


def require_editable(pair: Pair, change: Edit) -> None:
    """Refuse an edit that cannot be, before it is decided.

    Raises:
        CurationInvalid: the pair is measured on, the text is empty or too long, or nothing would change.
    """
    _decision(pair, change, by="")


def _decision(pair: Pair, change: Edit | None, *, by: str) -> Decision:
    """Return what is decided about a pair: an edit, or with None a drop."""
    if change is None:
        return Curation().with_drop(pair.id, by=by).decisions[pair.id]
    if pair.status == "held_out":
        raise CurationInvalid("a held-out reply can be dropped, not edited: it is what is measured on", field=pair.id)
    edited = Curation().with_edit(pair.written, question=change.question, completion=change.completion, by=by)
    return edited.decisions[pair.id]


async def _keep(
    context: Context,
    user: str,
    changes: Mapping[str, Decision | None],
    *,
    instead_of: Mapping[str, Decision | None] | None = None,
) -> dict[str, Decision | None]:
    """Keep decisions and return what there was before about the same pairs.

    With `instead_of`, only those are replaced that still say what it says: what somebody has decided since stays.
    """
    tenant = context.settings.tenant
    async with context.database.transaction() as session:
        repository = CurationRepository(session)
        before = (await repository.get(tenant=tenant, user=user)).decisions
        for key, decision in changes.items():
            if instead_of is not None and _effect(before.get(key)) != _effect(instead_of[key]):
                continue
            if decision is None:
                await repository.remove(key, tenant=tenant, user=user)
            else:
                await repository.put(key, decision, tenant=tenant, user=user)
    return {key: before.get(key) for key in changes}


def _effect(decision: Decision | None) -> dict[str, Any] | None:
    return None if decision is None else decision.effect
