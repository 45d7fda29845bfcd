"""Routes of usage."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from kit.database import Database
from kit.names import Name
from serving.errors import CursorInvalid
from serving.gateway.auth import Caller, needs
from serving.gateway.cursor import decode_cursor, encode_cursor
from serving.gateway.endpoints import Cursor, Limit, refusals
from serving.gateway.scopes import Scope
from serving.gateway.usage.repository import UsageRepository, Used

router = APIRouter(prefix="/v1/usage", tags=["usage"])
_USUAL_DAYS = 30


class Usage(BaseModel):
    """What was used on one day (UTC): questions, chats and extractions, and the tokens of questions and chats."""

    day: datetime.date
    user_id: str | None
    requests: int
    prompt_tokens: int
    completion_tokens: int


class UsagePage(BaseModel):
    """Usage by day and user; `next_cursor` is null on the last page."""

    usage: list[Usage]
    next_cursor: str | None


@router.get("", responses=refusals())
async def show_usage(
    request: Request,
    caller: Annotated[Caller, needs(Scope.USAGE_READ)],
    by: Annotated[
        Literal["user", "day"], Query(description="a row a user and day, or the tenant's sums a day")
    ] = "user",
    since: Annotated[datetime.date | None, Query(description="first day; 30 days ago when left out")] = None,
    until: Annotated[datetime.date | None, Query(description="last day; today when left out")] = None,
    user_id: Annotated[Name | None, Query(description="only this user's")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> UsagePage:
    """Show what the tenant used. The last few seconds may be missing: counts are written down in batches."""
    today = datetime.datetime.now(datetime.UTC).date()
    first, last = since or today - datetime.timedelta(days=_USUAL_DAYS), until or today
    database: Database = request.app.state.database
    async with database.reading() as session:
        repository = UsageRepository(session)
        if by == "day":
            sums = await repository.sums(caller.tenant, since=first, until=last, user=user_id)
            return UsagePage(usage=[_shown(each) for each in sums], next_cursor=None)
        found = await repository.page(
            caller.tenant, since=first, until=last, user=user_id, after=_place(cursor), limit=limit + 1
        )
    rows = found[:limit]
    more = encode_cursor([rows[-1].day.isoformat(), rows[-1].user_id]) if len(found) > limit else None
    return UsagePage(usage=[_shown(each) for each in rows], next_cursor=more)


def _place(cursor: str | None) -> tuple[datetime.date, str] | None:
    if cursor is None:
        return None
    day, user = decode_cursor(cursor, parts=2)
    try:
        return datetime.date.fromisoformat(day), user
    except ValueError as exc:
        raise CursorInvalid(field="cursor") from exc


def _shown(used: Used) -> Usage:
    return Usage(
        day=used.day,
        user_id=used.user_id or None,
        requests=used.requests,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
    )
