"""Routes of steering: aliases, suspension, retirement, erasure, policy."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from kit.names import Name
from registry.access import Operator, refusals
from registry.catalog.schemas import Alias
from registry.lifecycle.aliases import Aliases
from registry.lifecycle.schemas import AliasMove
from registry.manifest import Owner, OwnerName

router = APIRouter(prefix="/v1", tags=["lifecycle"])
_ADAPTER = "/tenants/{tenant}/users/{user}/adapters/{adapter}"


def get_aliases(request: Request) -> Aliases:
    """Return what moves aliases."""
    aliases: Aliases = request.app.state.aliases
    return aliases


AliasesDep = Annotated[Aliases, Depends(get_aliases)]


@router.put(_ADAPTER + "/aliases/{alias}", responses=refusals(404, 409, 413))
async def move_alias(
    tenant: Name, user: OwnerName, adapter: Name, alias: Name, move: AliasMove, aliases: AliasesDep, caller: Operator
) -> Alias:
    """Move an alias by compare-and-swap."""
    await aliases.move_alias(Owner(tenant=tenant, user=user), adapter, alias, move=move, actor=caller.actor)
    return Alias(alias=alias, version_id=move.version_id)
