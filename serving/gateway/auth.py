"""Who is calling, and what that caller may do: the tenant and the scopes of the API key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from kit.database import Database
from kit.errors import DatabaseUnavailable
from serving.errors import ScopeMissing, Unauthorized
from serving.gateway.brief_cache import BriefCache
from serving.gateway.erasing import Sign
from serving.gateway.keys import find_key, key_digest
from serving.gateway.remembered import Remembered
from serving.gateway.repository import TenantLimit
from serving.gateway.scopes import EVERYTHING, Scope

_NO_LIMIT = TenantLimit()
_STRANGERS_AT_ONCE = 2
_MET_SECONDS = 86_400.0
_PATIENCE_SECONDS = 5.0  # longer than a busy database takes: a key that was revoked is not let in for that
_FROM_MEMORY = frozenset({Scope.QUERY, Scope.CHAT})  # a token must not wait for a database
_bearer = HTTPBearer(auto_error=False, description="An API key of your tenant: `lorry_…`")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """On whose behalf a request is made, and what its key allows."""

    tenant: str
    key_id: str = ""
    scopes: frozenset[str] = frozenset()
    limit: TenantLimit = _NO_LIMIT
    valid_until: float | None = None  # on the monotonic clock

    def may(self, scope: Scope) -> bool:
        """Say whether the key has the scope."""
        return scope in self.scopes or EVERYTHING in self.scopes

    def require(self, scope: Scope) -> None:
        """Do nothing when the key has the scope.

        Raises:
            ScopeMissing: naming the scope, when it has not.
        """
        if not self.may(scope):
            raise ScopeMissing(f"this API key lacks the scope {scope.value!r}", scope=scope.value)


class Authenticator:
    """Turns API keys into callers; what the database said is remembered briefly, and longer while it is silent."""

    def __init__(self, database: Database, *, cache_seconds: float, stale_seconds: float = 0.0) -> None:
        self._database = database
        self._known: Remembered[bytes, Caller] = Remembered(
            seconds=cache_seconds,
            stale_seconds=stale_seconds,
            unavailable=(DatabaseUnavailable,),
            patience_seconds=_PATIENCE_SECONDS,
        )
        # Whoever makes keys up has every one of them looked for: those who have one must not wait for that.
        self._strangers = asyncio.Semaphore(_STRANGERS_AT_ONCE)
        self._met: BriefCache[bytes, bool] = BriefCache(seconds=_MET_SECONDS)

    async def authenticate(self, key: str) -> Caller:
        """Return the caller whose key this is.

        Raises:
            Unauthorized: when it is no valid key; the message does not say why.
            DatabaseUnavailable: when nobody can say.
        """
        digest = key_digest(key)

        async def ask() -> Caller:
            if self._met.get(digest) is not None:
                return await self._ask(key)
            async with self._strangers:
                return await self._ask(key)

        caller = await self._known.get(digest, ask)
        self._met.put(digest, True)
        if caller.valid_until is not None and caller.valid_until <= time.monotonic():
            raise Unauthorized
        return caller

    async def _ask(self, key: str) -> Caller:
        async with self._database.reading() as session:
            found = await find_key(session, key)
        if found is None:
            raise Unauthorized
        left = found.left_seconds
        return Caller(
            tenant=found.tenant,
            key_id=found.key_id,
            scopes=frozenset(found.scopes),
            limit=found.limit,
            valid_until=None if left is None else time.monotonic() + left,
        )


def presented_key(authorization: str) -> str:
    """Return the API key in an ``Authorization`` header.

    Raises:
        Unauthorized: when it holds none.
    """
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Unauthorized
    return key.strip()


async def require_caller(
    request: Request,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],  # for OpenAPI
) -> Caller:
    """Return who is calling, as the entrance found out.

    Raises:
        Unauthorized: when nobody came through the entrance.
    """
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None:
        raise Unauthorized
    return caller


CallerDep = Annotated[Caller, Depends(require_caller)]


def needs(scope: Scope) -> Any:
    """Return the dependency of a route whose callers need a scope; it gives the route its caller.

    Whoever is named in the route's path must not be being erased, unless it is about just that.
    """

    async def check(request: Request, caller: CallerDep) -> Caller:
        caller.require(scope)
        user = request.path_params.get("user_id")
        if user is not None and scope is not Scope.ERASE:
            sign: Sign = request.app.state.sign
            began: float = getattr(request.state, "began", time.monotonic())
            await sign.require_not_erasing(
                caller.tenant,
                user,
                asked_seconds_ago=time.monotonic() - began,
                reads_database=scope not in _FROM_MEMORY,
            )
        return caller

    check.scope = scope  # type: ignore[attr-defined]  # read by `scope_of`, for OpenAPI and tests
    return Depends(check)


def scope_of(dependency: Callable[..., Any] | None) -> Scope | None:
    """Return the scope that a route's dependency checks; None when it is another dependency."""
    found: Scope | None = getattr(dependency, "scope", None)
    return found
