"""`python -m serving.jobs`: one extraction worker."""

from __future__ import annotations

import asyncio
import signal
import sys

from kit.errors import LorryError
from kit.telemetry import configure_logging
from serving.jobs.settings import ExtractionWorkerSettings
from serving.jobs.worker import Worker


def main() -> None:
    """Work until told to stop; exit code 1 when the worker cannot begin."""
    settings = ExtractionWorkerSettings.read_or_exit("extraction worker")
    configure_logging(settings.log_level)
    try:
        asyncio.run(_run(Worker(settings)))
    except (LorryError, OSError) as exc:
        sys.stderr.write(f"extraction worker: {exc}\n")
        raise SystemExit(1) from exc


async def _run(worker: Worker) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, worker.stop.set)
    await worker.run()


if __name__ == "__main__":
    main()
