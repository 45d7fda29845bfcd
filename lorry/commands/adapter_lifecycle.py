"""`lorry adapters promote`, `rollback`, `history`, `suspend`, `resume`, `retire`, `erase`: steering what serves."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel

from kit.names import check_name
from kit.words import counted
from lorry.context import Context, open_context
from lorry.errors import FileUnreadable
from lorry.output import command, confirm, out, print_json, print_table, run, shown_time
from registry.catalog.schemas import VersionDetail
from registry.errors import AliasNotFound, InvalidReference
from registry.lifecycle.schemas import CANDIDATE, AliasHistory, AliasMoved, AuditEntry, AuditPage, EvaluationReport
from registry.manifest import DEFAULT_ADAPTER, LIVE, AdapterRef

_VERSION_ID = re.compile(r"v[0-9a-f]{32}")
_LISTED = 1000
_T = TypeVar("_T")
AUDIT_COLUMNS = ["time", "who", "what", "of", "from", "to", "why"]

app = typer.Typer()
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Adapter = Annotated[str, typer.Argument(help="USER, users/USER[/ADAPTER] or shared/ADAPTER")]
Version = Annotated[str, typer.Argument(help="USER@VERSION, users/USER/ADAPTER@VERSION or @ALIAS, or a version id")]
Any_ = Annotated[str, typer.Argument(help="an adapter, as users/USER/ADAPTER, or one version of it, with @VERSION")]
Why = Annotated[str, typer.Option(help="the reason, for the audit trail")]
WholeUser = Annotated[bool, typer.Option("--whole-user", help="everything of this user, not one adapter or version")]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a reference means: one version by its id, or an adapter; `named` = a version was asked for."""

    ref: AdapterRef | None
    version_id: str | None
    named: bool

    @classmethod
    def parse(cls, text: str, *, tenant: str) -> Target:
        """Read a reference, or a version id.

        Raises:
            InvalidReference: for what is neither.
        """
        if _VERSION_ID.fullmatch(text):
            return cls(ref=None, version_id=text, named=True)
        return cls(ref=AdapterRef.parse(text, tenant=tenant), version_id=None, named="@" in text)

    def require_adapter(self) -> AdapterRef:
        """Return the adapter.

        Raises:
            InvalidReference: for a version id, which does not say whose it is.
        """
        if self.ref is None:
            raise InvalidReference("name the adapter as users/USER/ADAPTER, not by a version id", field="reference")
        return self.ref


@app.command()
def promote(
    reference: Any_,
    source: Annotated[str, typer.Option("--from", help="alias to promote, where the reference names no version")] = (
        CANDIDATE
    ),
    target: Annotated[str, typer.Option("--to", help="alias that moves")] = LIVE,
    why: Why = "",
    as_json: Json = False,
) -> None:
    """Let `live` name the candidate, or the version given, if the tenant's gate lets it."""
    _show_move(run(_promote(reference, source=source, target=target, why=why), as_json=as_json), as_json=as_json)


@app.command()
def rollback(
    reference: Adapter,
    alias: Annotated[str, typer.Option(help="alias that moves")] = LIVE,
    why: Why = "",
    as_json: Json = False,
) -> None:
    """Let `live` name what it named before, passing over what may not be served any more."""
    _show_move(run(_rollback(reference, alias=alias, why=why), as_json=as_json), as_json=as_json)


@app.command()
def history(
    reference: Adapter,
    alias: Annotated[str | None, typer.Option(help="only this alias's moves")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_LISTED, help="how many, the newest first")] = 50,
    as_json: Json = False,
) -> None:
    """List the moves of an adapter's aliases: what was live when, by whom, and why."""
    found = run(_history(reference, alias=alias, limit=limit), as_json=as_json)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    rows = [
        [
            f"{move.at:%Y-%m-%d %H:%M:%S}",
            move.alias,
            move.action,
            str(move.version) if move.version else "—",
            move.version_id or "—",
            move.actor,
            move.why or "",
        ]
        for move in found.moves
    ]
    columns = ["time", "alias", "by way of", "version", "version id", "who", "why"]
    print_table(f"History of {reference}", columns, rows, numeric=frozenset({"version"}))


@app.command()
def audit(
    reference: Any_,
    whole_user: WholeUser = False,
    limit: Annotated[int, typer.Option(min=1, max=_LISTED, help="how many, the newest first")] = 50,
    as_json: Json = False,
) -> None:
    """List everything that happened to an adapter or a version: who, when, from, to, why."""
    found = run(_audit(reference, whole_user=whole_user, limit=limit), as_json=as_json)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print_table(f"Audit trail of {reference}", AUDIT_COLUMNS, [audit_row(entry) for entry in found.entries])


@app.command()
def suspend(reference: Any_, why: Why, whole_user: WholeUser = False, as_json: Json = False) -> None:
    """Stop a version, an adapter or a user from serving, on every engine and within seconds."""
    _steer(reference, "suspend", whole_user=whole_user, why=why, as_json=as_json)


@app.command()
def resume(reference: Any_, why: Why, whole_user: WholeUser = False, as_json: Json = False) -> None:
    """Let what was suspended serve again."""
    _steer(reference, "resume", whole_user=whole_user, why=why, as_json=as_json)


@app.command()
def suspended(as_json: Json = False) -> None:
    """List the tenant's suspended users and adapters."""
    found = run(_suspended(), as_json=as_json)
    if as_json:
        print_json(found)
        return
    columns = ["user", "adapter", "since", "actor", "why"]
    rows = [[each["user"], each["adapter"] or "(all)", _since(each), each["actor"], each["why"]] for each in found]
    print_table("Suspended", columns, rows)


def _since(suspension: dict[str, Any]) -> str:
    return shown_time(datetime.fromisoformat(suspension["since"]))


@app.command()
def retire(reference: Version, why: Why, as_json: Json = False) -> None:
    """Take a version that no alias names out of use for good."""
    found = run(_with_version(reference, lambda c, v: c.registry.lifecycle.retire_version(v, why=why)), as_json=as_json)
    _show(found, f"version {found.version} is {found.state}", as_json=as_json)


@app.command()
def attach(
    reference: Version,
    report: Annotated[Path, typer.Argument(help="a JSON file with an evaluation report")],
    as_json: Json = False,
) -> None:
    """Attach an evaluation report to a version, at which the tenant's gate looks from now on."""
    found = run(_attach(reference, report), as_json=as_json)
    _show(found, f"report {found.id} is attached to {found.version_id}", as_json=as_json)


@app.command()
def erase(
    reference: Any_,
    why: Why,
    whole_user: WholeUser = False,
    force: Annotated[bool, typer.Option("--force", help="also while engines answer requests with it")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: Json = False,
) -> None:
    """Erase a version, or everything of a user and the key that opens it, for good."""
    found = run(_erase(reference, whole_user=whole_user, force=force, yes=yes, why=why), as_json=as_json)
    if as_json:
        print_json(found)
    elif whole_user:
        key = "their data key is destroyed" if found["data_key_destroyed"] else "there was no data key to destroy"
        erased = counted(found["erased"], "version")
        out.print(f"erased {erased} ({found['already']} already); {key}", highlight=False)
    else:
        out.print(f"erased version {found['version']} ({found['version_id']})", highlight=False)


async def _promote(reference: str, *, source: str, target: str, why: str) -> AliasMoved:
    async with open_context() as context:
        asked = Target.parse(reference, tenant=context.settings.tenant)
        ref = asked.require_adapter()
        if ref.version is None:
            source = ref.selector if asked.named else source
            return await _promote_alias(context, ref, source=source, to=target, why=why)
        current = await _named_by(context, ref, alias=target)
        wanted = await context.registry.show_version(ref)
        before = current.version_id if current else None
        await context.registry.move_alias(
            ref.owner, ref.adapter, target, version_id=wanted.version_id, expected_version_id=before, why=why
        )
        return AliasMoved(
            alias=target,
            version_id=wanted.version_id,
            before_version_id=before,
            version=wanted.version,
            before_version=current.version if current else None,
        )


async def _promote_alias(context: Context, ref: AdapterRef, *, source: str, to: str, why: str) -> AliasMoved:
    """Let one alias name what another one names.

    Raises:
        AliasNotFound: when there is no such alias, with what to type instead.
    """
    try:
        return await context.registry.lifecycle.promote(ref.owner, ref.adapter, source=source, target=to, why=why)
    except AliasNotFound as exc:
        raise AliasNotFound(f"{short(ref)} has no alias {source}; {say_which(ref)}", field=exc.field) from exc


async def _named_by(context: Context, ref: AdapterRef, *, alias: str) -> VersionDetail | None:
    """Return the version that an alias of the reference's adapter names; None when there is no such alias."""
    if check_name(alias, field="alias").isdecimal():
        return None  # it would read as a version; the registry says so when it is to become an alias
    try:
        return await context.registry.show_version(ref.model_copy(update={"selector": alias}))
    except AliasNotFound:
        return None


def say_which(ref: AdapterRef) -> str:
    """Return what to type to let a version of this adapter serve."""
    name = short(ref)
    return f"say which version, as `{command()} adapters promote {name}@1` (`{command()} adapters versions {name}`)"


def short(ref: AdapterRef) -> str:
    """Return an adapter's name as it is typed: the user alone for the adapter that is meant without a name."""
    plain = not ref.owner.shared and ref.adapter == DEFAULT_ADAPTER
    return ref.owner.user if plain else f"{ref.owner.path}/{ref.adapter}"


async def _rollback(reference: str, *, alias: str, why: str) -> AliasMoved:
    async with open_context() as context:
        ref = Target.parse(reference, tenant=context.settings.tenant).require_adapter()
        current = await context.registry.get_alias(ref.owner, ref.adapter, alias)
        return await context.registry.lifecycle.rollback(
            ref.owner, ref.adapter, alias=alias, expected_version_id=current, why=why
        )


async def _history(reference: str, *, alias: str | None, limit: int) -> AliasHistory:
    async with open_context() as context:
        ref = Target.parse(reference, tenant=context.settings.tenant).require_adapter()
        return await context.registry.lifecycle.history(ref.owner, ref.adapter, alias=alias, limit=limit)


async def _audit(reference: str, *, whole_user: bool, limit: int) -> AuditPage:
    async with open_context() as context:
        target = Target.parse(reference, tenant=context.settings.tenant)
        if target.named and not whole_user:
            return await context.registry.lifecycle.audit_of_version(await _version_id(context, target), limit=limit)
        ref = target.require_adapter()
        return await context.registry.lifecycle.audit_of(ref.owner, None if whole_user else ref.adapter, limit=limit)


async def _suspended() -> list[dict[str, Any]]:
    async with open_context() as context:
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = await context.registry.lifecycle.list_suspensions(
                context.settings.tenant, cursor=cursor, limit=_LISTED
            )
            for each in page.suspensions:
                found.append({"user": each.owner.user, **each.model_dump(mode="json", exclude={"owner"})})
            cursor = page.next_cursor
            if cursor is None:
                return found


def _steer(reference: str, verb: str, *, whole_user: bool, why: str, as_json: bool) -> None:
    """Suspend or resume what is named, and say how it stands now."""
    found = run(_standing(reference, verb, whole_user=whole_user, why=why), as_json=as_json)
    _show(found, f"{found['what']} is {found['state']}", as_json=as_json)


async def _standing(reference: str, verb: str, *, whole_user: bool, why: str) -> dict[str, Any]:
    async with open_context() as context:
        lifecycle = context.registry.lifecycle
        target = Target.parse(reference, tenant=context.settings.tenant)
        if target.named and not whole_user:
            version_id = await _version_id(context, target)
            steer = lifecycle.suspend_version if verb == "suspend" else lifecycle.resume_version
            state = await steer(version_id, why=why)
            return {"what": f"version {state.version}", **state.model_dump(mode="json")}
        ref = target.require_adapter()
        adapter = None if whole_user else ref.adapter
        what = ref.owner.path if whole_user else f"{ref.owner.path}/{ref.adapter}"
        if verb == "suspend":
            suspension = await lifecycle.suspend(ref.owner, adapter, why=why)
            return {"what": what, "state": "suspended", **suspension.model_dump(mode="json")}
        await lifecycle.resume(ref.owner, adapter, why=why)
        return {"what": what, "state": "serving"}


async def _erase(reference: str, *, whole_user: bool, force: bool, yes: bool, why: str) -> dict[str, Any]:
    async with open_context() as context:
        target = Target.parse(reference, tenant=context.settings.tenant)
        if whole_user:
            owner = target.require_adapter().owner
            confirm(f"Erase every adapter of {owner.path} and destroy their key? Nothing brings it back.", yes=yes)
            erased = await context.registry.lifecycle.erase_owner(owner, why=why, force=force)
            return erased.model_dump(mode="json")
        if not target.named:
            raise InvalidReference("say which version, with @VERSION, or --whole-user", field="reference")
        version_id = await _version_id(context, target)
        confirm(f"Erase {reference} ({version_id})? Nothing brings it back.", yes=yes)
        tombstone = await context.registry.lifecycle.erase_version(version_id, why=why, force=force)
        return tombstone.model_dump(mode="json")


async def _attach(reference: str, path: Path) -> EvaluationReport:
    report = _read_report(path)
    return await _with_version(reference, lambda c, v: c.registry.lifecycle.attach_evaluation(v, report))


async def _with_version(reference: str, act: Callable[[Context, str], Awaitable[_T]]) -> _T:
    """Do something with the version that a reference names, whatever its state."""
    async with open_context() as context:
        target = Target.parse(reference, tenant=context.settings.tenant)
        if not target.named:
            raise InvalidReference("say which version, with @VERSION or @ALIAS", field="reference")
        return await act(context, await _version_id(context, target))


async def _version_id(context: Context, target: Target) -> str:
    if target.version_id is not None:
        return target.version_id
    return (await context.registry.show_version(target.require_adapter())).version_id


def audit_row(entry: AuditEntry) -> list[str]:
    """Return the table's cells."""
    time = f"{entry.at:%Y-%m-%d %H:%M:%S}"
    changed = [entry.before or "", entry.after or "", entry.why or ""]
    return [time, entry.actor, entry.action, entry.version_id or entry.subject or entry.tenant or "", *changed]


def _read_report(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileUnreadable: when it is none.
    """
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise FileUnreadable(f"{path} is no JSON file that can be read: {exc}", field=str(path)) from exc
    if not isinstance(report, dict):
        raise FileUnreadable(f"{path} does not hold a JSON object", field=str(path))
    return report


def _show_move(moved: AliasMoved, *, as_json: bool) -> None:
    now, before = moved.version or moved.version_id, moved.before_version or moved.before_version_id
    _show(moved, f"{moved.alias} names version {now} ({f'was {before}' if before else 'is new'})", as_json=as_json)


def _show(found: BaseModel | dict[str, Any], sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(found.model_dump(mode="json") if isinstance(found, BaseModel) else found)
    else:
        out.print(sentence, highlight=False, markup=False)
