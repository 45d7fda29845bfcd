"""`python -m serving.gateway`: one gateway process."""

from __future__ import annotations

import uvicorn

from kit.telemetry import configure_logging
from serving.gateway.app import create_app
from serving.gateway.passage.draining import DrainingServer
from serving.gateway.passage.patience import patient_protocol
from serving.gateway.settings import GatewaySettings


def main() -> None:
    """Serve until told to stop. There is no access log of uvicorn's: paths name users."""
    settings = GatewaySettings.read_or_exit("gateway")
    configure_logging(settings.log_level)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.gateway_host,
        port=settings.gateway_port,
        log_config=None,
        access_log=False,
        http=patient_protocol(),
        timeout_graceful_shutdown=settings.gateway_drain_seconds,
    )
    DrainingServer(config, app=app, notice_seconds=settings.gateway_notice_seconds).run()


if __name__ == "__main__":
    main()
