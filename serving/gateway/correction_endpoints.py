"""What people correct of a user's profile."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.extraction.corrections.correction import Correction
from serving.extraction.corrections.service import Corrections
from serving.extraction.profile import Statement
from serving.gateway.auth import Caller, needs
from serving.gateway.body_route import BodyRoute
from serving.gateway.endpoints import UserId, refusals
from serving.gateway.idempotency.repository import RequestRepository
from serving.gateway.scopes import Scope

router = APIRouter(
    prefix="/v1/users/{user_id}/profile",
    tags=["profiles"],
    route_class=BodyRoute,
    responses=refusals(404, 413, 422, 503),
)
_LARGEST_ID = 2**63 - 1
Reader = Annotated[Caller, needs(Scope.PROFILES_READ)]
Writer = Annotated[Caller, needs(Scope.PROFILES_WRITE)]
_WITHHELD = {"text": None, "topic": None, "statement": None}
CorrectionId = Annotated[int, Path(ge=1, le=_LARGEST_ID)]


class CorrectionRequest(BaseModel):
    """One thing to do to a fact of the profile."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["edit", "confirm", "forbid"]
    fact: str = Field(min_length=1, max_length=400, description="its id or text; to forbid, any statement in words")
    text: str | None = Field(None, min_length=1, max_length=400, description="what an edit puts in its place")
    by: str = Field(min_length=1, max_length=128, description="who does it, by your own name for them")

    @model_validator(mode="after")
    def _edits_have_a_text(self) -> Self:
        if (self.kind == "edit") != (self.text is not None):
            raise ValueError("text is of an edit, and every edit has one")
        return self


class CorrectionShown(BaseModel):
    """One correction, in force or withdrawn. What it says of the profile is null for a key without `profiles:read`."""

    id: int
    kind: Literal["edit", "confirm", "forbid"]
    fact_id: str
    text: str | None = Field(description="the statement as it stood, or what is forbidden")
    topic: str | None
    statement: Statement | None = Field(description="what an edit put in its place, or what was confirmed")
    made_by: str
    made_at: datetime
    withdrawn_by: str | None
    withdrawn_at: datetime | None


class CorrectionList(BaseModel):
    """Corrections, the oldest first."""

    corrections: list[CorrectionShown]


@router.get("/corrections")
async def list_corrections(
    user_id: UserId,
    request: Request,
    caller: Reader,
    withdrawn: Annotated[bool, Query(description="also those that are no longer in force")] = False,
) -> CorrectionList:
    """Return what people corrected of a user's profile, and who and when."""
    found: Sequence[Correction] = await _corrections(request, caller.tenant).list(user_id, withdrawn=withdrawn)
    return CorrectionList(corrections=[_shown(each) for each in found])


@router.post("/corrections", status_code=201)
async def correct(user_id: UserId, body: CorrectionRequest, request: Request, caller: Writer) -> CorrectionShown:
    """Edit, confirm or forbid a fact, from now on and in every later profile."""
    corrections = _corrections(request, caller.tenant)
    match body.kind:
        case "edit":
            done = await corrections.edit(user_id, body.fact, text=body.text or "", by=body.by)
        case "confirm":
            done = await corrections.confirm(user_id, body.fact, by=body.by)
        case "forbid":
            done = await corrections.forbid(user_id, body.fact, by=body.by)
    await _forget_answers(request, caller.tenant, user_id)
    shown = _shown(done)
    return shown if caller.may(Scope.PROFILES_READ) else shown.model_copy(update=_WITHHELD)


@router.delete("/corrections/{correction_id}", status_code=204)
async def withdraw_correction(
    user_id: UserId,
    correction_id: CorrectionId,
    request: Request,
    caller: Writer,
    by: Annotated[str, Query(min_length=1, max_length=128, description="who withdraws it")],
) -> None:
    """Take a correction back; it stays in the list of those withdrawn."""
    await _corrections(request, caller.tenant).withdraw(user_id, correction_id, by=by)
    await _forget_answers(request, caller.tenant, user_id)


async def _forget_answers(request: Request, tenant: str, user: str) -> None:
    """Give no profile again to a request that is repeated: it may state what was corrected."""
    async with request.app.state.database.transaction() as session:
        await RequestRepository(session).erase(tenant=tenant, user=user)


def _corrections(request: Request, tenant: str) -> Corrections:
    return Corrections(request.app.state.database, tenant=tenant)


def _shown(correction: Correction) -> CorrectionShown:
    fields = {name: getattr(correction, name) for name in CorrectionShown.model_fields}
    return CorrectionShown(**fields)
