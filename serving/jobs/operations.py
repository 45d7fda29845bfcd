"""A worker's own door: health and metrics, nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from kit.database import Database
from serving.jobs.metrics import ExtractionMetrics


def operations(*, database: Database, metrics: ExtractionMetrics, is_ready: Callable[[], bool]) -> FastAPI:
    """Return the routes; `is_ready` says whether the worker takes users in hand."""
    app = FastAPI(openapi_url=None)

    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    async def readyz() -> JSONResponse:
        return JSONResponse({"status": "ready" if is_ready() else "stopping"}, status_code=200 if is_ready() else 503)

    async def exposition() -> Response:
        return Response(await metrics.render(database), media_type=CONTENT_TYPE_LATEST)

    app.add_api_route("/healthz", healthz)
    app.add_api_route("/readyz", readyz)
    app.add_api_route("/metrics", exposition)
    return app


class _Server(uvicorn.Server):
    """Leaves signals to the worker."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield


@dataclass(frozen=True, kw_only=True)
class Door:
    """Where a worker answers, and the task that does; it ends before its time only when it failed."""

    port: int
    answers: asyncio.Task[None]


@asynccontextmanager
async def answering(app: FastAPI, *, host: str, port: int) -> AsyncIterator[Door]:
    """Answer while the block runs.

    Raises:
        OSError: when the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening:
        server = _Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        answers = asyncio.create_task(server.serve([listening]), name="door")
        try:
            yield Door(port=listening.getsockname()[1], answers=answers)
        finally:
            server.should_exit = True
            server.force_exit = True
            await asyncio.wait({answers})  # what it raised is for whoever watches it
            # One that failed left its socket with the event loop, which would not hear the next file of that number.
            for each in getattr(server, "servers", ()):
                each.close()
