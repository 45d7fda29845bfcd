"""When a tenant's users are trained without anybody asking, and who is due by that."""

from __future__ import annotations

from kit.database import Database
from kit.names import check_name
from training.jobs.job import DEFAULT_ADAPTER, Submission
from training.jobs.staleness import Rules
from training.jobs.triggers.repository import RulesRepository
from training.jobs.triggers.stale_users import Staleness, who_is_stale


class TenantRules:
    """Every tenant's rules in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant: str) -> Rules:
        """Return when the tenant's users are trained without anybody asking."""
        async with self._database.reading() as session:
            return await RulesRepository(session).get(check_name(tenant, field="tenant"))

    async def put(self, tenant: str, rules: Rules) -> Rules:
        """Set when the tenant's users are trained without anybody asking.

        Raises:
            JobRequestInvalid: naming the rule that cannot be followed.
            ConfigInvalid: naming a setting that does not exist or cannot have this value.
        """
        check_name(tenant, field="tenant")
        rules.check()
        Submission(tenant=tenant, user="-", base="-", settings=rules.settings, priority=rules.priority).check()
        async with self._database.transaction() as session:
            await RulesRepository(session).put(tenant, rules)
        return rules

    async def staleness(
        self, tenant: str, *, base: str | None = None, adapter: str = DEFAULT_ADAPTER, rules: Rules | None = None
    ) -> list[Staleness]:
        """Return every user of the tenant with whether and why a training is due; `base` is the one wanted now."""
        check_name(tenant, field="tenant")
        async with self._database.transaction() as session:
            return await who_is_stale(session, tenant, base=base, adapter=adapter, rules=rules)
