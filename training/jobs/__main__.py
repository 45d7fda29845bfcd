"""`python -m training.jobs`: one training worker."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from kit.errors import LorryError
from kit.telemetry import configure_logging
from training.jobs.settings import WorkerSettings
from training.jobs.worker import Worker
from training.writers.settings import WriterSettings


def main() -> None:
    """Work until told to stop; exit code 1 when the worker cannot begin."""
    settings = WorkerSettings.read_or_exit("training worker")
    writers = WriterSettings.read_or_exit("training worker")
    configure_logging(settings.log_level)
    code = 0
    try:
        asyncio.run(_run(Worker(settings, writers=writers)))
    except LorryError as exc:
        sys.stderr.write(f"training worker: {exc.message}\n")
        code = 1
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)  # a thread that waits for a question writer must not hold up the end


async def _run(worker: Worker) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, worker.stop.set)
    await worker.run()


if __name__ == "__main__":
    main()
