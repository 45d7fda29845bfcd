"""`python -m training.service`: one process of the training service."""

from __future__ import annotations

import uvicorn

from kit.telemetry import configure_logging
from training.jobs.settings import TrainingServiceSettings
from training.service.app import create_app


def main() -> None:
    """Serve until told to stop. There is no access log: paths name users."""
    settings = TrainingServiceSettings.read_or_exit("training service")
    configure_logging(settings.log_level)
    uvicorn.run(
        create_app(settings),
        host=settings.training_host,
        port=settings.training_port,
        log_config=None,
        access_log=False,
    )


if __name__ == "__main__":
    main()
