"""`python -m lorry.erasure`: conducts a database's erasures, and marks what an earlier release has stored there."""

from __future__ import annotations

import asyncio
import signal
import sys

from kit.database import Database
from kit.errors import LorryError
from kit.telemetry import configure_logging
from lorry.erasure.conducting import conductor_of
from lorry.erasure.settings import ErasureSettings
from lorry.marking import marking
from registry.client import RegistryClient
from training.writers.settings import WriterSettings


def main() -> None:
    """Conduct until told to stop; exit code 1 when the database or the registry cannot be used."""
    settings = ErasureSettings.read_or_exit("erasure")
    writers = WriterSettings.read_or_exit("erasure")
    configure_logging(settings.log_level)
    try:
        asyncio.run(_run(settings, writers))
    except LorryError as exc:
        sys.stderr.write(f"erasure: {exc.message}\n")
        raise SystemExit(1) from exc


async def _run(settings: ErasureSettings, writers: WriterSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    database = Database(settings)
    try:
        await database.check()
        token = settings.registry_token.get_secret_value()
        async with RegistryClient(url=settings.registry_url, token=token, actor="erasure") as registry:
            conductor = conductor_of(settings, database=database, registry=registry, writers=writers)
            async with marking(database):
                await conductor.run(stop)
    finally:
        await database.close()


if __name__ == "__main__":
    main()
