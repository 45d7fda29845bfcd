"""Each tenant's webhook secret: derived, shown to whoever operates, changed when it was seen by the wrong people."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from kit.names import check_name
from serving.jobs.errors import WebhooksNotSetUp
from serving.jobs.settings import BatchSettings
from serving.jobs.tenants.repository import TenantRepository
from serving.jobs.webhooks.signature import derive_secret

_OVERLAP_SECONDS = 86_400.0


class WebhookSecrets:
    """The secrets of all tenants; none is stored."""

    def __init__(self, database: Database, settings: BatchSettings) -> None:
        self._database = database
        key = settings.extraction_webhook_key
        self._key = key.get_secret_value().encode() if key else None

    async def show(self, tenant: str) -> str:
        """Return the secret that signs now.

        Raises:
            WebhooksNotSetUp: when there is no key to make it of.
        """
        check_name(tenant, field="tenant")
        async with self._database.reading() as session:
            return (await self.signing(session, tenant))[0]

    async def rotate(self, tenant: str) -> str:
        """Return a new secret; the one before signs beside it for a day.

        Raises:
            WebhooksNotSetUp: when there is no key to make it of.
        """
        check_name(tenant, field="tenant")
        async with self._database.transaction() as session:
            await TenantRepository(session).rotate(tenant)
            return (await self.signing(session, tenant))[0]

    async def signing(self, session: AsyncSession, tenant: str) -> list[str]:
        """Return the secrets that sign now, the newest first."""
        if self._key is None:
            raise WebhooksNotSetUp
        repository = TenantRepository(session)
        row = await repository.get(tenant)
        generation = row.secret_generation if row else 0
        age = await repository.rotated_seconds_ago(tenant)
        count = 2 if generation and age is not None and age < _OVERLAP_SECONDS else 1
        return [
            derive_secret(self._key, tenant=tenant, generation=each)
            for each in range(generation, generation - count, -1)
        ]
