"""`lorry profile`: one user's profile, what people corrected of it, and how it differs from the one before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from kit.names import check_name
from lorry.context import Context, open_context
from lorry.errors import NotThere
from lorry.output import out, print_json, print_table, run, shown_time
from lorry.stages.correcting import Deed, correct_user_profile
from registry.errors import AdapterNotFound, AliasNotFound
from registry.manifest import AdapterRef, Owner
from serving.extraction.corrections.correction import Correction
from serving.extraction.corrections.service import Corrections
from serving.extraction.corrections.shown import shown_difference, shown_profile
from serving.extraction.profile import Difference, Profile
from serving.extraction.render import render_markdown
from serving.extraction.render.context import LEAST_BUDGET_TOKENS, render_context
from serving.extraction.render.tokens import CountTokens, token_counter

_DONE = {
    "confirm": "confirmed: {text} (correction {id})",
    "edit": "corrected (correction {id}); before: {text}",
    "forbid": "forbidden, in whatever words: {text} (correction {id})",
    "withdraw": "correction {id} withdrawn",
}


class Format(StrEnum):
    """What to print."""

    md = "md"
    json = "json"
    context = "context"


def profile(
    user: Annotated[str, typer.Argument(help="user_id")],
    format: Annotated[
        Format, typer.Option(help="Markdown for people, JSON for programs, or a short text for an agent's context")
    ] = Format.md,
    budget: Annotated[
        int | None,
        typer.Option(min=LEAST_BUDGET_TOKENS, help="most tokens of --format context; the surest facts are kept"),
    ] = None,
    difference: Annotated[bool, typer.Option("--difference", help="what changed since the profile before")] = False,
    confirm: Annotated[
        str | None, typer.Option(metavar="FACT", help="say that a fact (its id or text) is true, so that it stays")
    ] = None,
    correct: Annotated[
        str | None, typer.Option(metavar="FACT", help="put the text of --to in the place of a fact")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="TEXT", help="what --correct puts there")] = None,
    forbid: Annotated[
        str | None,
        typer.Option(metavar="FACT", help="never state or quote a fact again, in whatever words, stated now or not"),
    ] = None,
    withdraw: Annotated[int | None, typer.Option(metavar="ID", help="take a correction back")] = None,
    corrections: Annotated[bool, typer.Option("--corrections", help="list what people corrected, and who")] = False,
    by: Annotated[str | None, typer.Option(help="who corrects; LORRY_ACTOR when omitted")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the same as --format json")] = False,
) -> None:
    """Print a user's profile: every statement above the user's own words that support it.

    Corrections survive every new extraction, and say who made them.
    """
    deeds = _deeds(confirm=confirm, correct=correct, to=to, forbid=forbid, withdraw=withdraw)
    if len(deeds) + corrections + difference > 1:
        raise typer.BadParameter("these are done one at a time: --confirm, --correct, --forbid, --withdraw, "
                                 "--corrections, --difference")  # fmt: skip
    if budget is not None and format is not Format.context:
        raise typer.BadParameter("--budget is of --format context")
    format = Format.json if as_json else format
    as_json = format is Format.json
    if deeds:
        done = run(_correct(user, deeds[0], by=by), as_json=as_json)
        print_json(done) if as_json else _say(_DONE[done["kind"]].format(**done))
    elif corrections:
        _print_corrections(user, run(_corrections(user), as_json=as_json), as_json=as_json)
    elif difference:
        changed = run(_difference(user), as_json=as_json)
        print_json(changed.model_dump(mode="json")) if as_json else _say(*_difference_lines(changed))
    else:
        _print(*run(_latest(user), as_json=as_json), format=format, budget=budget)


def _deeds(
    *, confirm: str | None, correct: str | None, to: str | None, forbid: str | None, withdraw: int | None
) -> list[Deed]:
    if (correct is None) != (to is None):
        raise typer.BadParameter("--correct FACT and --to TEXT go together")
    deeds = []
    if confirm is not None:
        deeds.append(Deed(kind="confirm", fact=confirm))
    if correct is not None and to is not None:
        deeds.append(Deed(kind="correct", fact=correct, to=to))
    if forbid is not None:
        deeds.append(Deed(kind="forbid", fact=forbid))
    if withdraw is not None:
        deeds.append(Deed(kind="withdraw", fact=str(withdraw)))
    return deeds


def _print(found: Profile, count: CountTokens, *, format: Format, budget: int | None) -> None:
    match format:
        case Format.json:
            print_json(found.model_dump(mode="json"))
        case Format.context:
            out.file.write(render_context(found, budget_tokens=budget, count=count))
        case Format.md:
            out.file.write(render_markdown(found))


def _print_corrections(user: str, found: Sequence[Correction], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(each) for each in found])
        return
    rows = [
        [
            str(each.id),
            each.kind,
            each.text,
            each.statement.text if each.kind == "edit" and each.statement else "",
            f"{each.made_by}, {shown_time(each.made_at)}",
            f"{each.withdrawn_by}, {shown_time(each.withdrawn_at)}" if each.withdrawn_by else "",
        ]
        for each in found
    ]
    columns = ["id", "what", "fact", "says now", "by", "withdrawn by"]
    print_table(f"Corrections of {user}", columns, rows, numeric=frozenset({"id"}))


def _difference_lines(difference: Difference) -> Iterator[str]:
    if difference.since is None:
        yield "This is the first profile."
    else:
        yield f"Since the profile of {shown_time(difference.since)}:"
    for sign, changes in (("+", difference.added), ("-", difference.gone)):
        for change in changes:
            yield f"{sign} {change.text} ({change.topic})"
    for change in difference.changed:
        yield f"~ {change.text} ({change.topic}): confidence {change.before:.2f} → {change.after:.2f}"
    if difference.forgotten:
        yield f"{difference.forgotten} more, whose words were deleted or forbidden"


def _say(*lines: str) -> None:
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=True)


async def _correct(user: str, deed: Deed, *, by: str | None) -> dict[str, Any]:
    check_name(user, field="user_id")
    async with open_context() as context:
        return await correct_user_profile(context, user=user, deed=deed, by=by or context.settings.actor)


async def _corrections(user: str) -> Sequence[Correction]:
    check_name(user, field="user_id")
    async with open_context() as context:
        return await Corrections(context.database, tenant=context.settings.tenant).list(user, withdrawn=True)


async def _difference(user: str) -> Difference:
    check_name(user, field="user_id")
    async with open_context() as context:
        async with context.database.reading() as session:
            found = await shown_difference(session, context.settings.tenant, user)
        if found is None:
            raise NotThere(f"nothing is kept of how a profile of {user} differs from the one before", field="user")
        return found


async def _latest(user: str) -> tuple[Profile, CountTokens]:
    """Return the profile, and how the machine's base counts tokens."""
    check_name(user, field="user_id")
    async with open_context() as context:
        async with context.database.reading() as session:
            found = await shown_profile(session, context.settings.tenant, user)
        if found is None:
            raise NotThere(f"{user} has no profile; {await _advice(context, user)}", field="user")
        return found, token_counter(_base_directory(context))


def _base_directory(context: Context) -> Path:
    """Return where the base's files are if it was ever unpacked; nothing is unpacked for counting."""
    named = Path(context.settings.base_model)
    return named if named.is_dir() else context.home.folder("bases") / named.name


async def _advice(context: Context, user: str) -> str:
    """Say what would make a profile: an extraction, where an adapter is live, or else everything."""
    try:
        await context.registry.resolve(AdapterRef(owner=Owner.named(tenant=context.settings.tenant, user=user)))
    except (AdapterNotFound, AliasNotFound):
        return f"nor a live adapter; `lorry run {user} FILE` goes from transcripts to a profile"
    return f"extract one with `lorry extract {user}`"
