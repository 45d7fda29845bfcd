"""`python -m registry`: one registry process."""

from __future__ import annotations

import uvicorn

from kit.telemetry import configure_logging
from registry.app import create_app
from registry.settings import RegistrySettings


def main() -> None:
    """Serve until told to stop. There is no access log: paths name users."""
    settings = RegistrySettings.read_or_exit("registry")
    configure_logging(settings.log_level)
    uvicorn.run(
        create_app(settings),
        host=settings.registry_host,
        port=settings.registry_port,
        log_config=None,
        access_log=False,
    )


if __name__ == "__main__":
    main()
