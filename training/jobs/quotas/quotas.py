"""What every tenant may use, and whether it may submit one more training, or have questions written for one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from kit.names import check_name
from training.jobs.assignment import Assignment
from training.jobs.costs.bill import Bill
from training.jobs.costs.repository import CostRepository, writing_cost
from training.jobs.dispatch import Quota
from training.jobs.errors import JobRequestInvalid, QuotaExhausted
from training.jobs.quotas.repository import QuotaRepository
from training.jobs.repository import JobRepository
from training.writers.cost import Cost

_DAY = timedelta(days=1)


class Quotas:
    """Every tenant's quota in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant: str) -> Quota:
        """Return what the tenant may use."""
        async with self._database.reading() as session:
            return await QuotaRepository(session).get(check_name(tenant, field="tenant"))

    async def put(self, tenant: str, quota: Quota) -> Quota:
        """Set what the tenant may use.

        Raises:
            JobRequestInvalid: a limit is negative.
        """
        check_name(tenant, field="tenant")
        for name, value in asdict(quota).items():
            if value is not None and not 0 <= value < 1 << 31:
                raise JobRequestInvalid(f"{name} must be a number of at least 0 (got {value})", field=name)
        async with self._database.transaction() as session:
            await QuotaRepository(session).put(tenant, quota)
        return quota


async def require_quota(session: AsyncSession, tenant: str) -> None:
    """Return when the tenant may submit one more job; the others of its submissions wait until this one is through.

    Raises:
        QuotaExhausted: its day or month is used up.
    """
    quota = await QuotaRepository(session).get(tenant, lock=True)
    if quota.max_daily is not None and await JobRepository(session).submitted_since(tenant, _DAY) >= quota.max_daily:
        raise QuotaExhausted(
            f"{tenant} has submitted the {quota.max_daily} trainings of its day: wait, or have max_daily raised",
            field="max_daily",
        )
    if quota.max_monthly_dollars is not None:
        spent = await CostRepository(session).spent_dollars(tenant)
        if spent >= quota.max_monthly_dollars:
            raise QuotaExhausted(
                f"{tenant} has spent {spent:.2f} of {quota.max_monthly_dollars:.2f} dollars in 30 days: wait, or have"
                " max_monthly_dollars raised",
                field="max_monthly_dollars",
            )


@dataclass(frozen=True, kw_only=True)
class Month:
    """A tenant's dollars of 30 days, and the `paid` part of one writing's cost that `spent` holds already."""

    limit: float | None
    spent: float
    promised: float
    paid: float

    def require(self, cost: Cost) -> None:
        """Refuse a writing that what is left does not pay for.

        Raises:
            QuotaExhausted: it costs more, or there is a limit and no price is known.
        """
        if self.limit is None or cost.dollars == 0:
            return
        if cost.dollars is None:
            raise QuotaExhausted(
                f"no price is known for {cost.model}, and the tenant may spend {self.limit:.2f} dollars in 30 days: "
                "put its price into LORRY_WRITER_PRICES_FILE",
                field="max_monthly_dollars",
            )
        left = max(cost.dollars - self.paid, 0.0)
        if self.spent + self.promised + left > self.limit:
            raise QuotaExhausted(
                f"writing would cost about {left:.2f} dollars, and of {self.limit:.2f} in 30 days {self.spent:.2f} are"
                f" spent and {self.promised:.2f} promised to writings that run or were killed (the same commands end"
                " those)",
                field="max_monthly_dollars",
            )


async def promise(session: AsyncSession, job: Assignment | Bill, cost: Cost, *, anew: bool) -> Month:
    """Write down what a writing will cost, and return what its tenant has for it; other estimates wait until then.

    What is written `anew` is paid for beside what it cost before.
    """
    quota = await QuotaRepository(session).get(job.tenant, lock=True)
    costs = CostRepository(session)
    if anew:
        await costs.set_aside(job.job_id, run=job.run, kind="write")
    await costs.keep(writing_cost(job, cost, is_estimate=True))
    return Month(
        limit=quota.max_monthly_dollars,
        spent=await costs.spent_dollars(job.tenant),
        promised=await costs.promised_dollars(job.tenant, except_job=job.job_id),
        paid=await costs.spent_on_writing(job.job_id),
    )
