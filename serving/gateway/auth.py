"""Who is calling: the tenant of the API key in the Authorization header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from kit.database import Database
from serving.errors import Unauthorized
from serving.gateway.brief_cache import BriefCache
from serving.gateway.keys import find_tenant, key_digest

_bearer = HTTPBearer(auto_error=False, description="An API key of your tenant: `lorry_…`")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """On whose behalf a request is made."""

    tenant: str


class Authenticator:
    """Turns API keys into callers; what the database said is remembered briefly."""

    def __init__(self, database: Database, *, cache_seconds: float) -> None:
        self._database = database
        self._known: BriefCache[bytes, str] = BriefCache(seconds=cache_seconds)

    async def authenticate(self, key: str) -> Caller:
        """Return the caller whose key this is.

        Raises:
            Unauthorized: when it is no valid key; the message does not say why.
        """
        digest = key_digest(key)
        tenant = self._known.get(digest)
        if tenant is None:
            async with self._database.transaction() as session:
                tenant = await find_tenant(session, key)
            if tenant is None:
                raise Unauthorized
            self._known.put(digest, tenant)
        return Caller(tenant=tenant)


async def require_caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """Return who is calling.

    Raises:
        Unauthorized: without a valid API key.
    """
    if credentials is None:
        raise Unauthorized
    authenticator: Authenticator = request.app.state.authenticator
    return await authenticator.authenticate(credentials.credentials)


CallerDep = Annotated[Caller, Depends(require_caller)]
