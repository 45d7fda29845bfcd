"""The sign that stops requests: while a user is being erased, every request that names them is refused."""

from __future__ import annotations

from kit.errors import DatabaseUnavailable, InvalidName
from kit.names import check_name
from serving.erasure.desk import ErasureDesk
from serving.gateway.remembered import Remembered

_BRIEF_SECONDS = 0.5


class Sign:
    """Whether a user is being erased, as one process knows it."""

    def __init__(self, desk: ErasureDesk, *, cache_seconds: float, stale_seconds: float = 0.0) -> None:
        """Ask `desk`; that somebody is not being erased is remembered as whose an API key is."""
        self._desk = desk
        self._open: Remembered[tuple[str, str], bool] = Remembered(
            seconds=cache_seconds, stale_seconds=stale_seconds, unavailable=(DatabaseUnavailable,)
        )

    async def require_not_erasing(self, tenant: str, user: str, *, asked_seconds_ago: float = 0.0) -> None:
        """Return, or refuse. A database that is away is no reason to: registry and engines refuse by themselves.

        Args:
            tenant: whose user.
            user: whom a request names.
            asked_seconds_ago: when the request began, whose body may have taken minutes to come.

        Raises:
            BeingErased: the user is being erased, or was since the request began.
        """

        async def ask() -> bool:
            await self._desk.require_not_erasing(tenant, user)
            return True

        try:
            check_name(user, field="user_id")
            await self._open.get((tenant, user), ask)
            if asked_seconds_ago > _BRIEF_SECONDS:
                await self._desk.require_not_erased(tenant, user, within_seconds=asked_seconds_ago)
        except (InvalidName, DatabaseUnavailable):
            return  # what is no name is nobody's, and refused as such by who reads it
