"""A conductor with everything it needs, made from what a process has: settings, or a command's home."""

from __future__ import annotations

from kit.database import Database
from lorry.erasure.conductor import Conductor
from lorry.erasure.settings import ErasureSettings
from lorry.erasure.stores import Rooms, stores
from lorry.local.plan import Plan
from registry.client import RegistryClient
from training.erasure.erasure import TrainingErasure
from training.writers.settings import WriterSettings


def conductor_of(
    settings: ErasureSettings, *, database: Database, registry: RegistryClient, writers: WriterSettings
) -> Conductor:
    """Return the conductor of a process of its own, which has no home."""
    token = settings.engine_token.get_secret_value() if settings.engine_token else None
    rooms = Rooms(
        database=database,
        registry=registry,
        trainings=TrainingErasure(database, writers=writers),
        writers=writers,
        home=None,
        engine_token=token,
    )
    return Conductor(database, stores(rooms), poll_seconds=settings.erasure_poll_seconds)


def rooms_of(plan: Plan, *, database: Database, registry: RegistryClient) -> Rooms:
    """Return what a process with a home reaches the stores by.

    Raises:
        SettingsInvalid: what question writers are told cannot be used.
    """
    writers = WriterSettings.read()
    return Rooms(
        database=database,
        registry=registry,
        trainings=TrainingErasure(database, writers=writers),
        writers=writers,
        home=plan.home,
        engine_token=plan.engine_token,
    )
