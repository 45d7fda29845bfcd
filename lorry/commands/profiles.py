"""`lorry profile`: one user's profile, as it was extracted last."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from lorry.context import open_context
from lorry.errors import NothingToDo
from lorry.output import out, print_json, run
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
) -> None:
    """Print a user's profile: every statement above the user's own words that support it."""
    found = run(_latest(user), as_json=format is Format.json)
    if format is Format.json:
        print_json(found.model_dump(mode="json"))
    else:
        out.file.write(render_markdown(found))


async def _latest(user: str) -> Profile:
    async with open_context() as context, context.database.transaction() as session:
        found = await ProfileRepository(session).latest(context.settings.tenant, user)
    if found is None:
        raise NothingToDo(f"{user} has no profile; extract one with `lorry extract {user}`", field="user")
    return found
