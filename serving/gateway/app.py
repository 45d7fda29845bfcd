"""The public API: wiring only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

import httpx
from fastapi import Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import ClientDisconnect

from kit.body_limit import BodyLimit
from kit.database import Database
from kit.http_metrics import MeasureRequests, RequestMetrics
from kit.problems import install_problem_handlers
from registry.client import RegistryClient
from serving.erasure.desk import ErasureDesk
from serving.errors import EngineUnavailable
from serving.extraction.bank import standard_bank
from serving.extraction.engine_client import EngineClient
from serving.extraction.extractor import Extractor
from serving.gateway import endpoints, erasure_endpoints, openai_endpoints
from serving.gateway.adapters import Adapters
from serving.gateway.auth import Authenticator
from serving.gateway.erasing import Sign, require_not_erasing
from serving.gateway.hints import Hints
from serving.gateway.openai_errors import install_openai_errors
from serving.gateway.profiles import Profiles
from serving.gateway.settings import GatewaySettings


def create_app(settings: GatewaySettings, *, registry_transport: httpx.AsyncBaseTransport | None = None) -> FastAPI:
    """Return the gateway; it connects when it starts and lets go when it stops.

    Args:
        settings: of this process.
        registry_transport: how to reach the registry other than by TCP, for a registry in the same process.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(settings)
        try:
            async with _registry(settings, registry_transport) as registry, _engine(settings) as engine:
                sign = Sign(ErasureDesk(database), cache_seconds=settings.gateway_cache_seconds)
                adapters = Adapters(registry, database, cache_seconds=settings.gateway_cache_seconds, sign=sign)
                app.state.sign = sign
                async with Hints(engine, adapters) as hints:
                    app.state.database, app.state.registry, app.state.engine = database, registry, engine
                    _connect(app, settings, adapters=adapters, hints=hints)
                    yield
        finally:
            await database.close()

    app = FastAPI(
        title="Lorry",
        description="Profiles of users and live queries to their adapters.",
        version=_version(),
        lifespan=lifespan,
    )
    measures = CollectorRegistry()
    app.state.measures = measures
    app.add_middleware(BodyLimit, max_bytes=settings.gateway_max_request_bytes)
    app.add_middleware(MeasureRequests, metrics=RequestMetrics(measures, prefix="lorry_gateway"))
    install_problem_handlers(app)
    install_openai_errors(app)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.include_router(endpoints.router, dependencies=[Depends(require_not_erasing)])
    app.include_router(erasure_endpoints.router)
    app.include_router(openai_endpoints.router)
    _add_operations(app)
    return app


def _registry(settings: GatewaySettings, transport: httpx.AsyncBaseTransport | None) -> RegistryClient:
    token = settings.registry_token.get_secret_value()
    return RegistryClient(url=settings.registry_url, token=token, actor="gateway", transport=transport)


def _engine(settings: GatewaySettings) -> EngineClient:
    token = settings.engine_token.get_secret_value()
    return EngineClient(url=settings.engine_url, token=token, timeout_seconds=settings.engine_timeout_seconds)


def _connect(app: FastAPI, settings: GatewaySettings, *, adapters: Adapters, hints: Hints) -> None:
    database, engine, seconds = app.state.database, app.state.engine, settings.gateway_cache_seconds
    app.state.adapters = adapters
    app.state.erasures = ErasureDesk(database)
    app.state.authenticator = Authenticator(database, cache_seconds=seconds)
    extractor = Extractor(database, engine, bank=standard_bank(), settings=settings)
    app.state.hints = hints
    app.state.profiles = Profiles(extractor, adapters, hints=hints, at_once=settings.gateway_extractions)


def _add_operations(app: FastAPI) -> None:
    """Add what needs no key: health, readiness, version, metrics."""

    @app.get("/healthz", tags=["operations"])
    async def healthz() -> dict[str, str]:
        """Say that the process runs; asks nothing of anybody."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operations"], responses=endpoints.refusals(503))
    async def readyz(request: Request) -> dict[str, str]:
        """Say that database, registry and engine answer; 503 names the first that does not."""
        state = request.app.state
        await state.database.check()
        await state.registry.list_bases()
        if not await state.engine.is_healthy():
            raise EngineUnavailable
        return {"status": "ready"}

    @app.get("/version", tags=["operations"])
    async def get_version() -> dict[str, str]:
        """Say which version of Lorry this is."""
        return {"version": _version()}

    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Return the gateway's measures for Prometheus."""
        return Response(generate_latest(request.app.state.measures), media_type=CONTENT_TYPE_LATEST)


async def _gone(request: Request, exc: Exception) -> Response:
    """The client went away: nobody reads this, but the metrics see the status."""
    return Response(status_code=499)


def _version() -> str:
    try:
        return version("lorry")
    except PackageNotFoundError:
        return "unknown"
