"""The base models that adapters may be made for: what they are called, what they are, what fits them."""

from __future__ import annotations

from kit.database import Database
from registry.errors import BaseModelMismatch
from registry.manifest import RegisteredBase
from registry.publishing.repository import PublishingRepository
from registry.publishing.schemas import BaseRegistration


class BaseModels:
    """Registers base models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, registration: BaseRegistration, *, actor: str) -> RegisteredBase:
        """Make a base model known; the same one again is no error, and may add a configuration that was left out.

        Raises:
            BaseModelUnreadable: when its configuration is not the declared one, or does not tell the model's sizes.
            BaseModelMismatch: when its id is taken by a base with other digests.
        """
        base = registration.registered()
        async with self._database.transaction() as session:
            repository = PublishingRepository(session)
            if await repository.add_base(base):
                repository.record(actor, "register-base", after=base.id)
                return base
            known = await repository.lock_base(base.id)
            if different := known.differences(base):
                raise BaseModelMismatch(
                    f"{base.id!r} is registered with other content; use another id", field=f"base.{different[0]}"
                )
            if known.shape is None and base.shape is not None:
                known = known.model_copy(update={"shape": base.shape})
                await repository.replace_base(known)
                repository.record(actor, "describe-base", after=base.id)
        return known

    async def list_all(self) -> list[RegisteredBase]:
        """Return every registered base model, by id."""
        async with self._database.transaction() as session:
            return await PublishingRepository(session).list_bases()
