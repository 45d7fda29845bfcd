"""Where tenants' policies are kept."""

from __future__ import annotations

from kit.database import Database
from registry.lifecycle.policy import TenantPolicy
from registry.repository import RegistryRepository


class PolicyBook:
    """Every tenant's policy."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant: str) -> TenantPolicy:
        """Return the tenant's policy; the defaults when it has none of its own.

        Within a transaction of one's own, ``TenantPolicy.of(await repository.get_policy(tenant))`` is the same.
        """
        async with self._database.transaction() as session:
            return TenantPolicy.of(await RegistryRepository(session).get_policy(tenant))

    async def put(self, tenant: str, policy: TenantPolicy, *, actor: str, why: str | None = None) -> TenantPolicy:
        """Replace the tenant's policy; what is published already stays as it is."""
        async with self._database.transaction() as session:
            repository = RegistryRepository(session)
            before = TenantPolicy.of(await repository.lock_policy(tenant))
            await repository.put_policy(tenant, policy.model_dump(mode="json"))
            if before != policy:
                repository.record(
                    actor,
                    "policy",
                    tenant=tenant,
                    before=_differing(before, policy),
                    after=_differing(policy, before),
                    why=why,
                )
        return policy


def _differing(policy: TenantPolicy, other: TenantPolicy) -> str:
    """Write down only the rules in which a policy differs from another, for the audit trail."""
    rules, others = policy.model_dump(mode="json"), other.model_dump(mode="json")
    return "; ".join(f"{name} = {rules[name]}" for name in rules if rules[name] != others[name])
