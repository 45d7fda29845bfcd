"""The sign that stops requests: while a user is being erased, every request that names them is refused."""

from __future__ import annotations

from fastapi import Request

from kit.errors import DatabaseUnavailable
from serving.erasure.desk import ErasureDesk
from serving.gateway.auth import CallerDep
from serving.gateway.brief_cache import BriefCache


class Sign:
    """Whether a user is being erased, as one process knows it."""

    def __init__(self, desk: ErasureDesk, *, cache_seconds: float) -> None:
        """Ask `desk`; that somebody is not being erased is remembered for `cache_seconds`."""
        self._desk = desk
        self._open: BriefCache[tuple[str, str], bool] = BriefCache(seconds=cache_seconds)

    async def require_not_erasing(self, tenant: str, user: str) -> None:
        """Return, or refuse. A database that is away is no reason to: registry and engines refuse by themselves.

        Raises:
            BeingErased: the user is being erased.
        """
        if self._open.get((tenant, user)):
            return
        try:
            await self._desk.require_not_erasing(tenant, user)
        except DatabaseUnavailable:
            return
        self._open.put((tenant, user), True)


async def require_not_erasing(request: Request, caller: CallerDep) -> None:
    """Refuse a request about a user who is being erased; every router whose paths hold a `user_id` depends on it.

    Raises:
        BeingErased: they are.
    """
    sign: Sign = request.app.state.sign
    if (user := request.path_params.get("user_id")) is not None:
        await sign.require_not_erasing(caller.tenant, user)
