"""Where an erasure is asked for, and where its report is read. Whoever conducts it (`lorry.erasure`) is elsewhere.

Asking puts a sign up in the database, which refuses every row of the user's from then on, in every process.
"""

from __future__ import annotations

from collections.abc import Mapping

from kit.database import Database
from kit.errors import BeingErased
from kit.names import check_name
from serving.erasure.models import ErasureRow, StepRow
from serving.erasure.report import STORES, ErasureReport, StoreReport
from serving.erasure.repository import ErasureRepository
from serving.errors import NeverErased, UnknownUser


class ErasureDesk:
    """Every erasure of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ask(self, tenant: str, user: str, *, asked_by: str, known: bool = False) -> ErasureReport:
        """Have everything of a user erased, from this moment on; asked again, it is the same erasure.

        Args:
            tenant: whose user.
            user: the tenant's own name for them.
            asked_by: the program or person, for the report.
            known: they are known from elsewhere, as from files on a machine.

        Returns:
            The report of the erasure that runs now; for a user of whom nothing is left, of the one that ended.

        Raises:
            UnknownUser: nothing is known of them, and nothing ever was.
            InvalidName: a name breaks the rule of names.
        """
        check_name(tenant, field="tenant")
        check_name(user, field="user_id")
        async with self._database.transaction() as session:
            repository = ErasureRepository(session)
            found = await repository.latest(tenant=tenant, user=user)
            if found is not None and found.user_id is not None:
                return await _report(repository, found)
            if not known and not await repository.traces(tenant=tenant, user=user):
                if found is None:
                    raise UnknownUser(f"there is nothing of user {user!r} to erase", field="user_id")
                return await _report(repository, found)
            return await _report(repository, await repository.begin(tenant=tenant, user=user, asked_by=asked_by))

    async def report(self, tenant: str, user: str) -> ErasureReport:
        """Return the erasure that runs, or the last one.

        Raises:
            NeverErased: there was none.
        """
        async with self._database.reading() as session:
            repository = ErasureRepository(session)
            found = await repository.latest(
                tenant=check_name(tenant, field="tenant"), user=check_name(user, field="user_id")
            )
            if found is None:
                raise NeverErased(f"nobody has asked to erase user {user!r}", field="user_id")
            return await _report(repository, found)

    async def require_not_erasing(self, tenant: str, user: str) -> None:
        """Return, or refuse.

        Raises:
            BeingErased: the user is being erased.
        """
        async with self._database.reading() as session:
            if await ErasureRepository(session).is_running(tenant=tenant, user=user):
                raise BeingErased

    async def require_not_erased(self, tenant: str, user: str, *, within_seconds: float) -> None:
        """Return, or refuse what began before an erasure that has ended since: it is not somebody new's.

        Raises:
            BeingErased: the user was erased meanwhile.
        """
        async with self._database.reading() as session:
            if await ErasureRepository(session).has_ended(tenant=tenant, user=user, within_seconds=within_seconds):
                raise BeingErased

    async def all_erasing(self, *, at_most: int) -> frozenset[tuple[str, str]] | None:
        """Return (tenant, user) of everybody who is being erased; None when there are more than `at_most`."""
        async with self._database.reading() as session:
            found = await ErasureRepository(session).some_running(at_most=at_most + 1)
        return frozenset(found) if len(found) <= at_most else None

    async def traces(self, tenant: str, user: str) -> dict[str, int]:
        """Return how many rows name the user, by table."""
        async with self._database.reading() as session:
            return await ErasureRepository(session).traces(tenant=tenant, user=user)


async def _report(repository: ErasureRepository, row: ErasureRow) -> ErasureReport:
    return report_of(row, await repository.steps(row.id))


def report_of(row: ErasureRow, steps: Mapping[str, StepRow]) -> ErasureReport:
    """Return what is shown of an erasure."""
    return ErasureReport(
        id=row.id,
        state="done" if row.ended_at else "running",
        asked_by=row.asked_by,
        asked_at=row.asked_at,
        ended_at=row.ended_at,
        stores=[_store(name, steps.get(name)) for name in STORES],
    )


def _store(name: str, step: StepRow | None) -> StoreReport:
    if step is None:
        return StoreReport(store=name, state="not begun")
    return StoreReport(
        store=name,
        state="done" if step.ended_at else "waiting",
        found=step.found,
        waits_for=step.waits_for,
        told=step.told,
        attempts=step.attempts,
        began_at=step.began_at,
        looked_at=step.looked_at,
        ended_at=step.ended_at,
    )
