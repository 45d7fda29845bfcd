"""`lorry status`: who is trained, on what, how well, and who is stale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from kit.names import check_name
from kit.words import counted
from lorry.commands.job_settings import base_name
from lorry.context import Context, open_context
from lorry.errors import NotThere
from lorry.output import out, print_json, print_table, run
from registry.errors import AdapterNotFound, AliasNotFound, BaseModelNotFound
from registry.manifest import AdapterRef, BaseIdentity, Manifest, Owner
from serving.extraction.repository import ProfileRepository
from training.base_models import base_id
from training.jobs.triggers.stale_users import Staleness
from training.jobs.triggers.tenant_rules import TenantRules
from transcripts.store import TranscriptStore


@dataclass(frozen=True, kw_only=True)
class UserStatus:
    """One user: what is stored, what is live, and how far apart the two are.

    `new_transcripts` counts those that the live version was not trained on; `stale` says so in words, or is empty.
    `base` is the base model of the live version; `wanted_base` the one of this home's settings where that is another
    one, whatever the two are called, else None. `due` is why the tenant's rules have them trained now, empty when they
    do not; `job` is a training that has not ended.
    """

    user: str
    transcripts: int
    own_words: int
    version: int | None
    trained_at: datetime | None
    dataset: str | None
    base_loss: float | None
    own_loss: float | None
    new_transcripts: int
    profile_version: int | None
    base: str | None
    wanted_base: str | None
    stale: str
    due: str = ""
    job: str | None = None


def status(
    user: Annotated[str | None, typer.Argument(help="one user_id; all of the tenant's when omitted")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Show every user's adapter age, last run, dataset and loss, and who is stale and why."""
    statuses = run(_statuses(user), as_json=as_json)
    if as_json:
        print_json([asdict(each) for each in statuses])
        return
    if not statuses:
        out.print("No transcripts yet; import some with `lorry import USER FILE`, or try `lorry demo`.")
        return
    # As wide as a terminal of 80 columns takes; --json has the rest.
    columns = ["user", "transcripts", "live", "age", "loss", "stale"]
    numeric, whole = frozenset({"transcripts", "live"}), frozenset({"user", "age", "loss", "stale"})
    print_table("Users (loss: base → own)", columns, [_row(each) for each in statuses], numeric=numeric, whole=whole)
    for each in statuses:
        for note in _notes(each):
            out.print(f"{each.user}: {note}", highlight=False, markup=False, soft_wrap=True)


async def _statuses(user: str | None) -> list[UserStatus]:
    if user is not None:
        check_name(user, field="user_id")
    async with open_context() as context:
        async with context.database.transaction() as session:
            users = [user] if user else await TranscriptStore(session).users(context.settings.tenant)
        name = base_name(context.settings)
        rules = await TenantRules(context.database).staleness(context.settings.tenant, base=name)
        found, wanted = {each.user: each for each in rules}, await _wanted(context, base_id(name))
        statuses = [_with_jobs(await _status(context, each, wanted=wanted), found.get(each)) for each in users]
        if user and not (statuses[0].transcripts or statuses[0].version):
            await _require_known(context, user)
        return statuses


def _with_jobs(status: UserStatus, found: Staleness | None) -> UserStatus:
    if found is None:
        return status
    return replace(status, due=found.due.reason if found.due else "", job=found.active_job)


async def _require_known(context: Context, user: str) -> None:
    """Raise for a user of whom there is neither a transcript nor an adapter."""
    if not (await context.registry.list_adapters(context.settings.tenant, user, limit=1)).adapters:
        raise NotThere(f"there is nothing of {user}; import transcripts with `lorry import {user} FILE`", field="user")


async def _wanted(context: Context, base: str) -> BaseIdentity | str:
    """Return the base that is wanted now: what the registry knows of it, or the mere name of one that it does not."""
    try:
        return (await context.registry.show_base(base)).identity
    except BaseModelNotFound:
        return base


async def _status(context: Context, user: str, *, wanted: BaseIdentity | str) -> UserStatus:
    tenant = context.settings.tenant
    async with context.database.transaction() as session:
        store = TranscriptStore(session)
        summary = await store.summary(tenant, user)
        ids = await store.last_states(tenant, user)
        profile = await ProfileRepository(session).latest(tenant, user)
    manifest = await _live(context, user)
    held_out = manifest.evaluation.get("held_out", {}) if manifest else {}
    new = len(ids - set(manifest.lineage.transcript_ids)) if manifest else len(ids)
    version = profile.adapter.version if profile else None
    other = _other_base(manifest, wanted)
    return UserStatus(
        user=user,
        transcripts=summary.transcripts,
        own_words=summary.user_words,
        version=manifest.version if manifest else None,
        trained_at=(manifest.lineage.trained_at or manifest.created_at) if manifest else None,
        dataset=manifest.lineage.dataset_digest if manifest else None,
        base_loss=held_out.get("base_loss"),
        own_loss=held_out.get("own_loss"),
        new_transcripts=new,
        profile_version=version,
        base=manifest.base.id if manifest else None,
        wanted_base=other,
        stale=_staleness(manifest, new=new, profile_version=version, wanted_base=other),
    )


async def _live(context: Context, user: str) -> Manifest | None:
    ref = AdapterRef(owner=Owner.named(tenant=context.settings.tenant, user=user))
    try:
        return (await context.registry.resolve(ref)).manifest
    except (AdapterNotFound, AliasNotFound):
        return None


def _other_base(manifest: Manifest | None, wanted: BaseIdentity | str) -> str | None:
    """Return the id of the base that is wanted where the version is of another one: by its weights, if it has any."""
    if manifest is None:
        return None
    if isinstance(wanted, str):
        return None if manifest.base.id == wanted else wanted
    return None if manifest.base.weights_sha256 == wanted.weights_sha256 else wanted.id


def _staleness(manifest: Manifest | None, *, new: int, profile_version: int | None, wanted_base: str | None) -> str:
    if manifest is None:
        return "no live adapter"
    reasons = [f"trained for {manifest.base.id}, wanted is {wanted_base}"] if wanted_base else []
    if new:
        reasons.append(f"{counted(new, 'transcript')} since the training")
    elif profile_version is None:
        reasons.append("no profile yet")
    elif profile_version != manifest.version:
        reasons.append(f"profile is of version {profile_version}")
    return "; ".join(reasons)


def _row(status: UserStatus) -> list[str]:
    losses = f"{status.base_loss:.2f} → {status.own_loss:.2f}" if status.own_loss and status.base_loss else "—"
    return [
        status.user,
        str(status.transcripts),
        str(status.version or "—"),
        _age(status.trained_at),
        losses,
        _short(status),
    ]


def _short(status: UserStatus) -> str:
    """Return `stale` in a few words; a training that is under way says more than what it will mend."""
    if status.job is not None:
        return "in training"
    if status.version is None:
        return "no adapter"
    reasons = []
    if status.new_transcripts:
        reasons.append(f"{status.new_transcripts} new")
    elif status.profile_version is None:
        reasons.append("no profile")
    elif status.profile_version != status.version:
        reasons.append(f"profile of {status.profile_version}")
    if status.wanted_base:
        reasons.append("base")
    return ", ".join(reasons) or "no"


def _notes(status: UserStatus) -> Iterator[str]:
    """Yield what the table has no room for: another base by name, and what is in hand or due by the tenant's rules."""
    if status.wanted_base:
        yield f"trained for {status.base}, wanted is {status.wanted_base}"
    if status.job is not None:
        yield f"in training, see `lorry jobs show {status.job}`"
    elif status.due:
        yield f"due for a training: {status.due}"


def _age(moment: datetime | None) -> str:
    if moment is None:
        return "—"
    minutes = int((datetime.now(UTC) - moment).total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"
