"""The first API key of this machine's tenant: made once, kept in LORRY_HOME with mode 0600."""

from __future__ import annotations

from kit.database import Database
from lorry.local.plan import Plan
from serving.gateway.keys import create_api_key

_SECRET = "api-key"


async def local_api_key(plan: Plan) -> str:
    """Return the tenant's key, creating it (and its hash in the database) the first time."""
    name = f"{_SECRET}-{plan.settings.tenant}"
    if plan.home.has_secret(name):
        return plan.home.secret(name)
    database = Database(plan.database)
    try:
        async with database.transaction() as session:
            key = await create_api_key(session, plan.settings.tenant)
            plan.home.keep_secret(name, key)
    finally:
        await database.close()
    return key
