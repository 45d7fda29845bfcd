"""`lorry profile`: one user's profile, as it was extracted last."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from kit.names import check_name
from lorry.context import Context, open_context
from lorry.errors import NotThere
from lorry.output import out, print_json, run
from registry.errors import AdapterNotFound, AliasNotFound
from registry.manifest import AdapterRef, Owner
from serving.extraction.profile import Profile
from serving.extraction.render import render_markdown
from serving.extraction.repository import ProfileRepository


class Format(StrEnum):
    """What to print."""

    md = "md"
    json = "json"


def profile(
    user: Annotated[str, typer.Argument(help="user_id")],
    format: Annotated[Format, typer.Option(help="Markdown for people, JSON for programs")] = Format.md,
    as_json: Annotated[bool, typer.Option("--json", help="the same as --format json")] = False,
) -> None:
    """Print a user's profile: every statement above the user's own words that support it."""
    as_json = as_json or format is Format.json
    found = run(_latest(user), as_json=as_json)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        out.file.write(render_markdown(found))


async def _latest(user: str) -> Profile:
    check_name(user, field="user_id")
    async with open_context() as context:
        async with context.database.transaction() as session:
            found = await ProfileRepository(session).latest(context.settings.tenant, user)
        if found is None:
            raise NotThere(f"{user} has no profile; {await _advice(context, user)}", field="user")
        return found


async def _advice(context: Context, user: str) -> str:
    """Say what would make a profile: an extraction, where an adapter is live, or else everything."""
    try:
        await context.registry.resolve(AdapterRef(owner=Owner.named(tenant=context.settings.tenant, user=user)))
    except (AdapterNotFound, AliasNotFound):
        return f"nor a live adapter; `lorry run {user} FILE` goes from transcripts to a profile"
    return f"extract one with `lorry extract {user}`"
