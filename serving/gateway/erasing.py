"""The sign that stops requests: while a user is being erased, every request that names them is refused."""

from __future__ import annotations

from dataclasses import dataclass

from kit.errors import BeingErased, DatabaseUnavailable, InvalidName
from kit.names import check_name
from serving.erasure.desk import ErasureDesk
from serving.gateway.remembered import Remembered

_BRIEF_SECONDS = 0.5
_AT_MOST = 1000


@dataclass(frozen=True)
class _Erasing:
    """Everybody who is being erased; `users` None = too many to list."""

    users: frozenset[tuple[str, str]] | None

    def with_one(self, tenant: str, user: str) -> _Erasing:
        """Return the same with one more."""
        return self if self.users is None else _Erasing(self.users | {(tenant, user)})


class Sign:
    """Whether a user is being erased, as one process knows it.

    Few are at any time, so one list answers for all users, and a user who comes once in a while waits for no database.
    While there are more than fit a list, each is asked for.
    """

    def __init__(
        self, desk: ErasureDesk, *, cache_seconds: float, stale_seconds: float = 0.0, at_most: int = _AT_MOST
    ) -> None:
        """Ask `desk`; what it says is remembered as whose an API key is, of at most so many in one list."""
        self._desk = desk
        self._at_most = at_most
        self._all: Remembered[str, _Erasing] = Remembered(
            seconds=cache_seconds, stale_seconds=stale_seconds, unavailable=(DatabaseUnavailable,)
        )
        self._open: Remembered[tuple[str, str], bool] = Remembered(
            seconds=cache_seconds, stale_seconds=stale_seconds, unavailable=(DatabaseUnavailable,)
        )

    def note_asked(self, tenant: str, user: str) -> None:
        """Take it in that this process has just had the user's erasure begin: it refuses them from now on."""
        self._all.amend("all", lambda known: known.with_one(tenant, user))
        self._open.amend((tenant, user), lambda known: None)

    async def require_not_erasing(
        self, tenant: str, user: str, *, asked_seconds_ago: float = 0.0, reads_database: bool = False
    ) -> None:
        """Return, or refuse. A database that is away is no reason to: registry and engines refuse by themselves.

        Args:
            tenant: whose user.
            user: whom a request names.
            asked_seconds_ago: when the request began, whose body may have taken minutes to come.
            reads_database: the request waits for the database anyway, so that nothing remembered need do.

        Raises:
            BeingErased: the user is being erased, or was since the request began.
        """
        try:
            check_name(user, field="user_id")
        except InvalidName:
            return  # what is no name is nobody's, and refused as such by who reads it
        try:
            if reads_database:
                await self._desk.require_not_erasing(tenant, user)
            else:
                await self._require_remembered(tenant, user)
            if asked_seconds_ago > _BRIEF_SECONDS:
                await self._desk.require_not_erased(tenant, user, within_seconds=asked_seconds_ago)
        except DatabaseUnavailable:
            if reads_database:
                await self._require_remembered(tenant, user)

    async def _require_remembered(self, tenant: str, user: str) -> None:
        try:
            erasing = (await self._all.get("all", self._look)).users
            if erasing is None:
                await self._open.get((tenant, user), lambda: self._ask(tenant, user))
        except DatabaseUnavailable:
            return
        if erasing is not None and (tenant, user) in erasing:
            raise BeingErased

    async def _look(self) -> _Erasing:
        return _Erasing(await self._desk.all_erasing(at_most=self._at_most))

    async def _ask(self, tenant: str, user: str) -> bool:
        await self._desk.require_not_erasing(tenant, user)
        return True
