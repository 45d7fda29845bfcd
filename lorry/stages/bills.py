"""What commands spend: kept in the database with what jobs cost, and held against the same limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from kit.errors import DatabaseUnavailable
from kit.whole import write_whole
from lorry.context import Context, tell
from lorry.patience import PATIENCE_SECONDS, patiently
from training.jobs.costs.bill import Bill
from training.jobs.costs.repository import CostRepository, cost_row, writing_cost
from training.jobs.quotas.quotas import promise
from training.writers.cost import Cost

_ID = "bill"
_FIGURE_SECONDS = 30.0
_Work = Callable[[AsyncSession], Awaitable[None]]


class WritingBill:
    """The bill of one writing; its id lies beside the writing's state, so that who goes on with it goes on with both.

    Each method may be called again with the same, as by a command that goes on after one that was killed; each waits
    for a database that is away.
    """

    def __init__(self, place: Path, *, database: Database, tenant: str, user: str) -> None:
        self._path = place / _ID
        self._database = database
        self._tenant = tenant
        self._user = user

    @property
    def is_open(self) -> bool:
        """Whether more may come; one of what an earlier release has written was never begun."""
        return self._path.exists()

    async def promise(self, cost: Cost, *, anew: bool) -> None:
        """Write down what the writing will cost, before anything is bought; `anew` it costs that beside what it has.

        Raises:
            QuotaExhausted: the tenant's month has not so much left.
        """

        async def work(session: AsyncSession) -> None:
            (await promise(session, self._bill(), cost, anew=anew)).require(cost)

        await self._pay(work)

    async def withdraw(self) -> None:
        """Promise nothing more: the writing was not begun, or is broken off."""
        await self._pay(lambda session: CostRepository(session).withdraw(self._bill().job_id))

    async def spend(self, cost: Cost) -> None:
        """Write down what the writing has cost so far, all of it together."""
        if cost.usage.requests:
            spent = writing_cost(self._bill(), cost, is_estimate=False)
            await self._pay(lambda session: CostRepository(session).keep(spent))

    async def close(self) -> None:
        """Expect nothing more: the writing is over."""
        await self._pay(lambda session: CostRepository(session).close(self._bill().job_id))

    def forget(self) -> None:
        """Have what is written here later pay with a bill of its own."""
        self._path.unlink(missing_ok=True)

    async def _pay(self, work: _Work) -> None:
        await _patiently(self._database, work, then="the same command goes on where this one stopped")

    def _bill(self) -> Bill:
        owner = {"tenant": self._tenant, "user": self._user}
        try:
            return Bill(**owner, job_id=self._path.read_text())
        except FileNotFoundError:
            bill = Bill(**owner)
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self._path, bill.job_id)
            return bill


async def keep_device_cost(context: Context, *, user: str, kind: str, seconds: float, tokens: int = 0) -> None:
    """Write down what a training or evaluation took of this machine's device, if it took anything.

    A database that is away for long costs that figure, and not what was trained.
    """
    if not seconds:
        return
    bill = Bill(tenant=context.settings.tenant, user=user)
    spent = cost_row(bill, kind, is_estimate=False, device_seconds=seconds, trained_tokens=tokens)

    async def keep(session: AsyncSession) -> None:
        await CostRepository(session).keep(spent)

    try:
        await _patiently(context.database, keep, then="the work itself is kept", seconds=_FIGURE_SECONDS)
    except DatabaseUnavailable as exc:
        tell(f"not among the costs: {seconds:.0f} s of the device ({kind} of {user}): {exc.message}")


async def _patiently(database: Database, work: _Work, *, then: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Do the work in a transaction, again until the database answers."""

    async def once() -> None:
        async with database.transaction() as session:
            await work(session)

    await patiently(once, then=then, patience_seconds=seconds)
