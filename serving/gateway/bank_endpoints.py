"""The question bank that a tenant's users are asked: the tenant's own, or the one that Lorry ships."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from serving.extraction.bank import Bank
from serving.extraction.bank.document import MOST_CHARACTERS
from serving.extraction.bank.shelf import BankShelf
from serving.gateway.auth import Caller, needs
from serving.gateway.body_route import BodyRoute
from serving.gateway.endpoints import refusals
from serving.gateway.scopes import Scope

router = APIRouter(prefix="/v1/bank", tags=["profiles"], route_class=BodyRoute, responses=refusals(413, 422, 503))
Reader = Annotated[Caller, needs(Scope.PROFILES_READ)]
Writer = Annotated[Caller, needs(Scope.PROFILES_WRITE)]


class BankDocument(BaseModel):
    """A tenant's bank as it is written."""

    model_config = ConfigDict(extra="forbid")

    document: str = Field(
        min_length=1, max_length=MOST_CHARACTERS, description="YAML, as docs/profiles.md describes it"
    )
    by: str = Field(min_length=1, max_length=128, description="who sets it, by your own name for them")


class BankShown(BaseModel):
    """What the tenant's users are asked now; revision, document, by and at are null for the bank that Lorry ships."""

    bank: Bank
    revision: int | None
    document: str | None
    made_by: str | None
    made_at: datetime | None


@router.get("")
async def get_bank(request: Request, caller: Reader) -> BankShown:
    """Return what the tenant's users are asked."""
    return await _shown(_shelf(request), caller.tenant)


@router.put("")
async def put_bank(body: BankDocument, request: Request, caller: Writer) -> BankShown:
    """Make a document the tenant's own bank from the next extraction on; the same again changes nothing."""
    shelf = _shelf(request)
    await shelf.put(caller.tenant, body.document, by=body.by)
    return await _shown(shelf, caller.tenant)


@router.delete("")
async def delete_bank(
    request: Request,
    caller: Writer,
    by: Annotated[str, Query(min_length=1, max_length=128, description="who")],
) -> BankShown:
    """Go back to the bank that Lorry ships; the revisions before are kept."""
    shelf = _shelf(request)
    if await shelf.kept(caller.tenant) is not None:
        await shelf.put(caller.tenant, None, by=by)
    return await _shown(shelf, caller.tenant)


def _shelf(request: Request) -> BankShelf:
    found: BankShelf = request.app.state.banks
    return found


async def _shown(shelf: BankShelf, tenant: str) -> BankShown:
    kept = await shelf.kept(tenant)
    own = kept if kept is not None and kept.document is not None else None
    return BankShown(
        bank=await shelf.bank_of(tenant),
        revision=own.revision if own else None,
        document=own.document if own else None,
        made_by=own.made_by if own else None,
        made_at=own.made_at if own else None,
    )
