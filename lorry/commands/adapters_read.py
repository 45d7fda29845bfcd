"""`lorry adapters list|show|versions|diff|lineage`: asking the registry who has what, and where it came from.

A page of the registry is a screenful here: rows are printed as they come, one call a page, whatever the length of the
list.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

import typer

from kit.names import check_name
from lorry.commands.adapter_lifecycle import say_which, short
from lorry.context import Context, open_context
from lorry.errors import NothingToDo
from lorry.output import JsonList, err, print_json, print_table, run, shown_time
from registry.catalog.schemas import AdapterSummary, Change, Difference, FoundVersion, VersionDetail, VersionSummary
from registry.errors import AliasNotFound, InvalidReference
from registry.manifest import LIVE, SHARED, AdapterRef, Manifest

T = TypeVar("T")
Pages = AsyncIterator[tuple[tuple[Any, ...], bool]]  # rows, and whether more follow
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Reference = Annotated[
    str, typer.Argument(help="USER, or users/USER[/ADAPTER][@ALIAS or @VERSION], or shared/ADAPTER[@…]")
]
Limit = Annotated[int, typer.Option(min=1, help="print at most so many")]
All = Annotated[bool, typer.Option("--all", help="print all, page by page, instead of --limit")]
_PAGE = 200
_LISTED = 8
_AGE = re.compile(r"(\d{1,6})([hdw])", re.ASCII)
_HOURS = {"h": 1, "d": 24, "w": 168}
_ADAPTER_COLUMNS = ["owner", "adapter", "live", "versions", "base", "published", "held-out loss", "aliases", "note"]
_VERSION_COLUMNS = ["version", "state", "aliases", "size", "created", "version id", "reason"]
_FOUND_COLUMNS = ["owner", "adapter", "version", "state", "aliases", "base", "created", "version id"]


def list_(
    user: Annotated[str | None, typer.Option(help="only this user's")] = None,
    shared: Annotated[bool, typer.Option("--shared", help="only what the whole tenant shares")] = False,
    search: Annotated[str | None, typer.Option(help="beginning of a user's name, or USER/BEGINNING")] = None,
    base: Annotated[str | None, typer.Option(help="only those with a version for this base model")] = None,
    alias: Annotated[str | None, typer.Option(help="only those that have this alias, as candidate")] = None,
    state: Annotated[str | None, typer.Option(help="only those with a version in this state, as rejected")] = None,
    suspended: Annotated[bool | None, typer.Option("--suspended/--not-suspended", help="only those that are")] = None,
    since: Annotated[str | None, typer.Option(help="created since: 12h, 7d, 4w, or a date")] = None,
    limit: Limit = 100,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """List the tenant's adapters with their live version."""
    filters = {"search": search, "base": base, "alias": alias, "state": state, "suspended": suspended}

    async def pages(context: Context) -> Pages:
        owner = SHARED if shared else user
        created_since = _moment(since) if since else None
        cursor: str | None = None
        while True:
            page = await context.registry.list_adapters(
                context.settings.tenant,
                owner,
                cursor,
                _PAGE if everything else min(_PAGE, limit),
                created_since=created_since,
                **filters,  # type: ignore[arg-type]
            )
            yield page.adapters, page.next_cursor is not None
            cursor = page.next_cursor
            if cursor is None:
                return

    numeric = frozenset({"live", "versions", "held-out loss"})
    spare = ("held-out loss", "aliases", "base", "published")
    most = None if everything else limit
    listing = _print_pages("Adapters", _ADAPTER_COLUMNS, pages, _adapter_row, most, as_json, numeric, spare=spare)
    run(listing, as_json=as_json)


def show(reference: Reference, as_json: Json = False) -> None:
    """Show one version, whatever its state: base, files, lineage, evaluation, and why it may not be served."""
    version = run(_show(reference), as_json=as_json)
    if as_json:
        print_json(version.model_dump(mode="json"))
        return
    print_table(f"{reference}: version {version.version}, {version.state}", ["field", "value"], describe(version))


def versions(reference: Reference, limit: Limit = 100, everything: All = False, as_json: Json = False) -> None:
    """List an adapter's versions in every state, the newest first."""

    async def pages(context: Context) -> Pages:
        ref = _ref(context, reference)
        cursor: str | None = None
        while True:
            size = _PAGE if everything else min(_PAGE, limit)
            page = await context.registry.page_versions(ref.owner, ref.adapter, cursor=cursor, limit=size)
            yield page.versions, page.next_cursor is not None
            cursor = page.next_cursor
            if cursor is None:
                return

    most = None if everything else limit
    numeric = frozenset({"version", "size"})
    spare = ("size", "created", "aliases")
    listing = _print_pages("Versions", _VERSION_COLUMNS, pages, _version_row, most, as_json, numeric, spare=spare)
    run(listing, as_json=as_json)


def diff(
    reference: Annotated[
        str, typer.Argument(help="USER or users/USER/ADAPTER or shared/ADAPTER; with @VERSION, the older version")
    ],
    old: Annotated[str | None, typer.Argument(help="version number or alias; after USER@VERSION, the newer")] = None,
    new: Annotated[str | None, typer.Argument(help="version number or alias; live when omitted")] = None,
    as_json: Json = False,
) -> None:
    """Compare two versions of an adapter: `diff USER 1 2`, or `diff USER@1 USER@2`; with one, it and `live`."""

    async def compare(context: Context) -> Difference:
        ref = _ref(context, reference)
        older, newer = _two_versions(context, ref, reference, [name for name in (old, new) if name is not None])
        return await context.registry.compare_versions(ref.owner, ref.adapter, old=older, new=newer)

    found = run(_with_context(compare), as_json=as_json)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    title = f"{reference}: version {found.old.version} → {found.new.version}"
    columns = ["field", f"version {found.old.version}", f"version {found.new.version}", "change"]
    rows = [_change_row(change) for change in found.changes]
    for each in found.members:
        rows.append([each.field, _some(each.removed, sign="−"), _some(each.added, sign="+"), _count(each)])
    print_table(title, columns, rows, numeric=frozenset({"change"}))


def _two_versions(context: Context, ref: AdapterRef, reference: str, named: list[str]) -> tuple[str, str]:
    """Return the selectors of what is to be compared, however it was typed: the older one, the newer one.

    Raises:
        InvalidReference: unless one or two versions are named, and both are of one adapter.
    """
    selectors = [ref.selector] if "@" in reference else []
    for name in named:
        other = _ref(context, name) if "@" in name else ref.model_copy(update={"selector": check_name(name)})
        if (other.owner, other.adapter) != (ref.owner, ref.adapter):
            raise InvalidReference(f"{name} is not of {short(ref)}: versions of one adapter are compared", field="new")
        selectors.append(other.selector)
    if not 1 <= len(selectors) <= 2:
        raise InvalidReference("name two versions: as `diff USER 1 2` or `diff USER@1 USER@2`", field="old")
    return selectors[0], (selectors[1:] or [LIVE])[0]


def lineage(
    reference: Annotated[str | None, typer.Argument(help="a version whose origin to show")] = None,
    transcript: Annotated[str | None, typer.Option(help="list what was trained on this transcript")] = None,
    base: Annotated[str | None, typer.Option(help="list what was trained for this base model")] = None,
    user: Annotated[str | None, typer.Option(help="of this user only")] = None,
    state: Annotated[str | None, typer.Option(help="in this state only")] = None,
    limit: Limit = 100,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Show where a version came from, or what came from a transcript or a base model."""
    if (reference is None) == (transcript is None and base is None):
        raise typer.BadParameter("give a version, or --transcript, or --base")
    if reference is not None:
        _show_lineage(reference, as_json=as_json)
        return

    async def pages(context: Context) -> Pages:
        if base is not None:
            await context.registry.show_base(base)  # one that nobody registered must not look like one without versions
        cursor: str | None = None
        while True:
            page = await context.registry.find_versions(
                context.settings.tenant,
                transcript=transcript,
                base=base,
                state=state,
                user=user,
                cursor=cursor,
                limit=_PAGE if everything else min(_PAGE, limit),
            )
            yield page.versions, page.next_cursor is not None
            cursor = page.next_cursor
            if cursor is None:
                return

    most = None if everything else limit
    numeric = frozenset({"version"})
    nothing = f"no version was trained on transcript {transcript}" if transcript is not None else None
    spare = ("created", "base", "aliases")
    listing = _print_pages(
        "Versions", _FOUND_COLUMNS, pages, _found_row, most, as_json, numeric, spare=spare, nothing=nothing
    )
    run(listing, as_json=as_json)


async def _show(reference: str) -> VersionDetail:
    """Return what a reference names.

    Raises:
        AliasNotFound: when it does not exist; where no version was asked for, with what to type instead.
    """

    async def show(context: Context) -> VersionDetail:
        ref = _ref(context, reference)
        try:
            return await context.registry.show_version(ref)
        except AliasNotFound as exc:
            if "@" in reference:
                raise
            raise AliasNotFound(f"{short(ref)} has no live version; {say_which(ref)}", field=exc.field) from exc

    return await _with_context(show)


async def _with_context(call: Callable[[Context], Awaitable[T]]) -> T:
    async with open_context() as context:
        return await call(context)


async def _print_pages(
    title: str,
    columns: list[str],
    pages: Callable[[Context], Pages],
    row: Callable[[Any], list[str]],
    most: int | None,
    as_json: bool,
    numeric: frozenset[str],
    *,
    spare: Sequence[str],
    nothing: str | None = None,
) -> None:
    """Print rows as their pages come; say on standard error when some were left out, or when there are none."""
    printed, more = 0, False
    async with open_context() as context:
        with JsonList(silent=not as_json) as document:
            async for page, follows in pages(context):
                rows = page if most is None else page[: most - printed]
                more = follows or len(rows) < len(page)
                for each in rows:
                    document.add(each.model_dump(mode="json"))
                if not as_json and rows:
                    told = [row(each) for each in rows]
                    print_table(title if not printed else "", columns, told, numeric=numeric, spare=spare)
                printed += len(rows)
                if most is not None and printed >= most:
                    break
    if not printed and not as_json:
        err.print(nothing or f"no {title.lower()} found", markup=False, highlight=False)
    if more:
        err.print(f"the first {printed}; --all or a larger --limit prints more", style="dim", highlight=False)


def _show_lineage(reference: str, *, as_json: bool) -> None:
    version = run(_show(reference), as_json=as_json)
    manifest = version.manifest
    if manifest is None:
        raise typer.BadParameter(f"version {version.version} was erased, and its lineage with it")
    if as_json:
        print_json({"version_id": version.version_id, **manifest.model_dump(mode="json", include={"base", "lineage"})})
        return
    print_table(f"Origin of {reference}: version {version.version}", ["field", "value"], _origin(manifest))


def _ref(context: Context, reference: str) -> AdapterRef:
    return AdapterRef.parse(reference, tenant=context.settings.tenant)


def _moment(text: str) -> datetime:
    """Read an age such as 7d, or a date; a date without an offset is UTC."""
    age = _AGE.fullmatch(text)
    if age is not None:
        return datetime.now(UTC) - timedelta(hours=int(age[1]) * _HOURS[age[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise NothingToDo(f"--since {text!r} is neither an age (12h, 7d, 4w) nor a date", field="since") from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _adapter_row(adapter: AdapterSummary) -> list[str]:
    live = adapter.live
    others = [name for name in adapter.aliases if name != "live"]
    note = "suspended" if adapter.suspended else (live.state if live and live.state != "ready" else "")
    return [
        _owner(adapter.owner.user),
        adapter.adapter,
        str(live.version) if live else "—",
        str(adapter.versions),
        live.base_id if live else "—",
        shown_time(live.ready_at) if live else "—",
        f"{live.own_loss:.3f}" if live and live.own_loss is not None else "—",
        ", ".join(sorted(others)),
        note,
    ]


def _version_row(version: VersionSummary) -> list[str]:
    return [
        str(version.version),
        version.state,
        ", ".join(version.aliases),
        f"{version.size_bytes:,}" if version.erased_at is None else "—",
        shown_time(version.created_at),
        version.version_id,
        version.reason or (f"erased {shown_time(version.erased_at)}" if version.erased_at else ""),
    ]


def _found_row(version: FoundVersion) -> list[str]:
    return [
        _owner(version.owner.user),
        version.adapter,
        str(version.version),
        version.state,
        ", ".join(version.aliases),
        version.base_id,
        shown_time(version.created_at),
        version.version_id,
    ]


def _change_row(change: Change) -> list[str]:
    numbers = [value for value in (change.old, change.new) if isinstance(value, int | float) and value is not True]
    delta = f"{numbers[1] - numbers[0]:+.4g}" if len(numbers) == 2 and False not in numbers else ""
    return [change.field, _value(change.old), _value(change.new), delta]


def _some(members: tuple[str, ...], *, sign: str) -> str:
    shown = [f"{sign} {member}" for member in members[:10]]
    return "\n".join([*shown, *([f"… and {len(members) - 10} more"] if len(members) > 10 else [])]) or "—"


def _count(members: Any) -> str:
    return f"−{len(members.removed)} +{len(members.added)}"


def describe(version: VersionDetail) -> list[list[str]]:
    """Return (field, value) rows of one version for people."""
    obstacle = "" if version.obstacle in (None, version.state) else f", {version.obstacle}"
    rows = [
        ["version id", version.version_id],
        ["state", version.state + obstacle],
        ["aliases", ", ".join(version.aliases) or "—"],
        ["created", shown_time(version.created_at)],
        *[[name.removesuffix("_at"), shown_time(moment)] for name, moment in _moments(version)],
        *([["reason", version.reason]] if version.reason else []),
        ["manifest digest", version.manifest_digest],
        ["signed", "yes" if version.signed else "no"],
    ]
    if version.manifest is None:
        return [*rows, ["content", "erased"]]
    return [*rows, *_content(version.manifest), *_evaluation(version)]


def _moments(version: VersionDetail) -> list[tuple[str, datetime]]:
    names = ("ready_at", "suspended_at", "retired_at", "removed_at", "erased_at")
    return [(name, getattr(version, name)) for name in names if getattr(version, name) is not None]


def _content(manifest: Manifest) -> list[list[str]]:
    return [
        ["rank, alpha", f"{manifest.lora.rank}, {manifest.lora.alpha:g}"],
        ["layers", ", ".join(manifest.lora.target_modules)],
        *[[file.path, f"{file.size_bytes:,} bytes, {file.sha256[:12]}…"] for file in manifest.files],
        *_origin(manifest),
    ]


def _origin(manifest: Manifest) -> list[list[str]]:
    lineage = manifest.lineage
    return [
        ["base", f"{manifest.base.id} ({manifest.base.weights_sha256[:12]}…)"],
        ["parent", lineage.parent_version_id or "—"],
        ["dataset", (lineage.dataset_digest or "—")[:24]],
        ["transcripts", f"{len(lineage.transcript_ids)}"],
        ["question writer", lineage.question_writer or "—"],
        ["seed", str(lineage.seed if lineage.seed is not None else "—")],
        ["trained", shown_time(lineage.trained_at) if lineage.trained_at else "—"],
        *[[f"package: {name}", found] for name, found in lineage.packages.items()],
    ]


def _evaluation(version: VersionDetail) -> list[list[str]]:
    """Return the held-out losses, what the gate said and why, and whatever else was measured; then a later report."""
    rows = [
        [f"evaluation: {name}", value] for name, value in _flat(version.manifest.evaluation if version.manifest else {})
    ]
    later = version.report or {}
    return [*rows, *([f"later report: {name}", value] for name, value in _flat(later.get("report", {})))]


def _flat(report: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in report.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            shown = [_value(each) for each in value[:_LISTED]]
            more = [f"… and {len(value) - _LISTED} more"] if len(value) > _LISTED else []
            yield f"{prefix}{name}", "\n".join([*shown, *more]) or "—"
        else:
            yield f"{prefix}{name}", _value(value)


def _owner(user: str) -> str:
    return "(shared)" if user == SHARED else user


def _value(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
