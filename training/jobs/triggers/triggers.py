"""Submits what is due by a tenant's rules."""

from __future__ import annotations

import logging
from datetime import timedelta

from kit.database import Database
from kit.errors import BeingErased
from training.errors import ConfigInvalid
from training.jobs.errors import NothingToTrainOn, QuotaExhausted, TrainingActive
from training.jobs.job import Submission
from training.jobs.jobs import Jobs
from training.jobs.repository import JobRepository
from training.jobs.staleness import Rules
from training.jobs.states import State
from training.jobs.triggers.repository import RulesRepository
from training.jobs.triggers.stale_users import Staleness, who_is_stale

_log = logging.getLogger(__name__)
_AFTER_A_FAILURE = timedelta(days=1)


class Triggers:
    """Looks at every tenant's users and submits those who are due."""

    def __init__(self, database: Database, *, base: str) -> None:
        self._database = database
        self._jobs = Jobs(database)
        self._base = base

    async def pull(self) -> int:
        """Submit what is due; return how many jobs. Of several workers one does it, the others return 0."""
        async with self._database.transaction() as session:
            if not await JobRepository(session).try_lock("triggers"):
                return 0
            tenants = await RulesRepository(session).all()
            return sum([await self._pull_tenant(tenant) for tenant, rules in tenants.items() if rules.enabled])

    async def _pull_tenant(self, tenant: str) -> int:
        async with self._database.transaction() as session:
            rules = await RulesRepository(session).get(tenant)
            stale = await who_is_stale(session, tenant, base=self._base, rules=rules)
            latest = await JobRepository(session).latest(tenant=tenant)
            now = await JobRepository(session).now()
            await RulesRepository(session).checked(tenant)
        count = 0
        for user in stale:
            last = latest.get(user.user)
            recently = last is not None and last.ended_at is not None and now - last.ended_at < _AFTER_A_FAILURE
            if user.due is None or user.active_job or (recently and user.last_state in {State.FAILED, State.CANCELED}):
                continue
            try:
                await self._submit(tenant, user, rules)
            except (TrainingActive, NothingToTrainOn, BeingErased):
                continue  # somebody was quicker, or erases them
            except QuotaExhausted:
                _log.info("a tenant's quota holds back trainings that are due")
                break
            except ConfigInvalid as exc:
                _log.warning("a tenant's training rules cannot be followed any more, for their setting %s", exc.field)
                break
            count += 1
        return count

    async def _submit(self, tenant: str, stale: Staleness, rules: Rules) -> None:
        assert stale.due is not None
        await self._jobs.submit(
            Submission(
                tenant=tenant,
                user=stale.user,
                base=self._base,
                settings=rules.settings,
                priority=rules.priority,
                trigger=stale.due.trigger,
                why=stale.due.reason,
            )
        )
