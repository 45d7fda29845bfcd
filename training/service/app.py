"""The training service: wiring only. Workers act on what it writes into the database.

The registry is asked for one thing, which base models a campaign may be for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from kit.body_limit import BodyLimit
from kit.database import Database
from kit.http_metrics import MeasureRequests
from kit.json_guard import JsonGuard
from kit.problems import install_problem_handlers
from kit.routes import add_routes
from registry.client import RegistryClient
from training.jobs.campaigns.campaigns import Campaigns
from training.jobs.jobs import Jobs
from training.jobs.settings import TrainingServiceSettings
from training.service import endpoints
from training.service.access import refusals
from training.service.metrics import TrainingMetrics


def create_app(settings: TrainingServiceSettings) -> FastAPI:
    """Return the service; it connects when it starts and lets go when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database, registry = Database(settings), _registry(settings)
        app.state.database, app.state.jobs, app.state.campaigns = database, Jobs(database), Campaigns(database)
        app.state.registry = registry
        try:
            yield
        finally:
            await database.close()
            if registry is not None:
                await registry.close()

    app = FastAPI(
        title="Lorry trainings",
        description="Training jobs: submit, look, steer.",
        version="1",
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.metrics = TrainingMetrics()
    app.add_middleware(JsonGuard)
    app.add_middleware(BodyLimit, max_bytes=settings.training_max_request_bytes)
    app.add_middleware(MeasureRequests, metrics=app.state.metrics.requests)
    install_problem_handlers(app)
    add_routes(app, endpoints.router)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that the process runs; asks nothing of anybody."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: refusals()[503]})
    async def readyz(request: Request) -> dict[str, str]:
        """Say that the database answers."""
        await request.app.state.database.check()
        return {"status": "ready"}

    @app.get("/metrics", include_in_schema=False, response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Return the service's measures for Prometheus; answers without the database as well."""
        body = await request.app.state.metrics.render(request.app.state.database)
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    return app


def _registry(settings: TrainingServiceSettings) -> RegistryClient | None:
    if settings.registry_url is None or settings.registry_token is None:
        return None
    token = settings.registry_token.get_secret_value()
    return RegistryClient(url=settings.registry_url, token=token, actor="training-service")
