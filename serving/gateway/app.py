"""The public API: wiring only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect

from kit.background import FAILURES
from kit.body_limit import BodyLimit
from kit.database import Database
from kit.http_metrics import MeasureRequests, RequestMetrics
from kit.json_guard import JsonGuard
from kit.problems import install_problem_handlers
from kit.routes import add_routes
from registry.client import RegistryClient
from serving.erasure.desk import ErasureDesk
from serving.extraction.bank import standard_bank
from serving.extraction.engine_client import EngineClient
from serving.extraction.engines import EngineName, Engines
from serving.extraction.extractor import Extractor
from serving.gateway import (
    adapter_endpoints,
    bank_endpoints,
    correction_endpoints,
    erasure_endpoints,
    openai_endpoints,
    operations,
    profile_endpoints,
    query_endpoints,
)
from serving.gateway.adapters import Adapters
from serving.gateway.answerers import Answerers
from serving.gateway.auth import Authenticator
from serving.gateway.engine_calls import EngineCalls
from serving.gateway.erasing import Sign
from serving.gateway.erasure_gauges import ErasureGauges
from serving.gateway.extraction_endpoints import extraction_router
from serving.gateway.hints import Hints
from serving.gateway.idempotency.middleware import IdempotentRequests, Keeping
from serving.gateway.limits.copies import Copies
from serving.gateway.limits.limiter import Allowance, Limiter
from serving.gateway.openai_errors import install_openai_errors
from serving.gateway.openapi import install_openapi
from serving.gateway.passage.bodies import Sizes, is_looked_at_later
from serving.gateway.passage.deadlines import Deadlines
from serving.gateway.passage.draining import Parting
from serving.gateway.passage.entrance import Entrance
from serving.gateway.passage.identity import Identified
from serving.gateway.passage.luggage import Luggage
from serving.gateway.passage.network import network
from serving.gateway.passage.travel import TravellingTransport
from serving.gateway.profiles import Profiles
from serving.gateway.settings import GatewaySettings
from serving.gateway.trainings import endpoints as training_endpoints
from serving.gateway.trainings.service import TrainingService
from serving.gateway.transcripts import endpoints as transcript_endpoints
from serving.gateway.transcripts.shelf import Shelf
from serving.gateway.upstream import Upstream
from serving.gateway.usage import endpoints as usage_endpoints
from serving.gateway.usage.meter import Meter

# In the order in which a request is compared with them: what is asked most, first.
_ENDPOINTS = (
    openai_endpoints,
    query_endpoints,
    profile_endpoints,
    correction_endpoints,
    bank_endpoints,
    transcript_endpoints,
    training_endpoints,
    adapter_endpoints,
    usage_endpoints,
    erasure_endpoints,
    operations,
)
_RUNNING_MARGIN = 2.0  # an idempotency key is held longer than its request may run


def create_app(settings: GatewaySettings, *, registry_transport: httpx.AsyncBaseTransport | None = None) -> FastAPI:
    """Return the gateway; it connects when it starts and lets go when it stops.

    Args:
        settings: of this process.
        registry_transport: how to reach the registry other than by TCP, for a registry in the same process.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await _connect(app, settings, stack, registry_transport=registry_transport)
            yield

    app = FastAPI(
        title="Lorry",
        description="Profiles of users and live queries to their adapters.",
        version=operations.installed_version(),
        lifespan=lifespan,
    )
    app.state.is_draining = False
    app.state.measures = CollectorRegistry()
    app.state.measures.register(FAILURES)
    app.state.erasure_gauges = ErasureGauges(app.state.measures)
    app.state.engine_calls = EngineCalls(app.state.measures)
    _add_passage(app, settings)
    install_problem_handlers(app)
    install_openai_errors(app)
    app.add_exception_handler(ClientDisconnect, _gone)
    add_routes(app, *(endpoints.router for endpoints in _ENDPOINTS))
    app.include_router(extraction_router(settings))  # which also begins and ends with the app
    install_openapi(app)
    return app


def _add_passage(app: FastAPI, settings: GatewaySettings) -> None:
    """Add what every request passes, the innermost first."""
    sizes = Sizes(settings)
    app.add_middleware(IdempotentRequests)
    app.add_middleware(JsonGuard, passes=is_looked_at_later)
    app.add_middleware(BodyLimit, max_bytes=sizes)
    app.add_middleware(Luggage, sizes=sizes, most_bytes=settings.gateway_bodies_bytes)
    app.add_middleware(Deadlines, most_seconds=settings.gateway_deadline_seconds)
    app.add_middleware(Entrance)
    app.add_middleware(Parting)
    app.add_middleware(MeasureRequests, metrics=RequestMetrics(app.state.measures, prefix="lorry_gateway"))
    app.add_middleware(Identified, log_key=settings.engine_token.get_secret_value().encode())


async def _connect(
    app: FastAPI,
    settings: GatewaySettings,
    stack: AsyncExitStack,
    *,
    registry_transport: httpx.AsyncBaseTransport | None,
) -> None:
    """Connect to everything; what is connected first is let go of last."""
    state = app.state
    database = state.database = Database(settings)
    stack.push_async_callback(database.close)
    registry = state.registry = await stack.enter_async_context(_registry(settings, registry_transport))
    engines = state.engines = await stack.enter_async_context(_engines(settings, state.engine_calls))
    remembering = {
        "cache_seconds": settings.gateway_cache_seconds,
        "stale_seconds": settings.gateway_stale_seconds,
    }
    state.erasures = ErasureDesk(database)
    sign = state.sign = Sign(
        state.erasures, cache_seconds=settings.gateway_cache_seconds, stale_seconds=settings.gateway_stale_seconds
    )
    adapters = state.adapters = Adapters(registry, database, **remembering, sign=sign)
    state.authenticator = Authenticator(database, **remembering)
    hints = state.hints = await stack.enter_async_context(Hints(engines, adapters))
    extractor = Extractor(database, engines, bank=standard_bank(), settings=settings)
    state.banks = extractor.banks
    profiles = state.profiles = Profiles(extractor, adapters, hints=hints, at_once=settings.gateway_extractions)
    state.answerers = Answerers(
        adapters,
        profiles,
        engines,
        sign=sign,
        base_name=settings.base_name,
        profile_characters=settings.gateway_fallback_characters,
    )
    meter = state.meter = Meter(database, every_seconds=settings.gateway_usage_seconds)
    await stack.enter_async_context(meter.chore)
    state.upstream = Upstream(meter=meter)
    state.shelf = Shelf(database)
    trainings = TrainingService(url=settings.training_url, token=settings.training_token)
    state.trainings = await stack.enter_async_context(trainings)
    state.keeping = _keeping(settings, database)
    await stack.enter_async_context(state.keeping.sweeping())
    copies = Copies(database, every_seconds=settings.gateway_copies_seconds)
    await stack.enter_async_context(copies.chore)
    state.limiter = Limiter(_allowance(settings), copies=lambda: copies.count)


def _registry(settings: GatewaySettings, transport: httpx.AsyncBaseTransport | None) -> RegistryClient:
    token = settings.registry_token.get_secret_value()
    way = network() if transport is None else TravellingTransport(transport)
    return RegistryClient(url=settings.registry_url, token=token, actor="gateway", transport=way)


def _engines(settings: GatewaySettings, calls: EngineCalls) -> AbstractAsyncContextManager[Engines]:
    def connect(url: str, name: EngineName) -> EngineClient:
        return EngineClient(
            url=url,
            token=settings.engine_token.get_secret_value(),
            timeout_seconds=settings.engine_timeout_seconds,
            transport=network(connections=settings.engine_connections),
            on_end=calls.counting(name),
        )

    return Engines.connected(settings.engine_url, of_bases=settings.base_engine_urls, connect=connect)


def _keeping(settings: GatewaySettings, database: Database) -> Keeping:
    return Keeping(
        database=database,
        answers=timedelta(seconds=settings.gateway_idempotency_seconds),
        running=timedelta(seconds=settings.gateway_deadline_seconds * _RUNNING_MARGIN),
    )


def _allowance(settings: GatewaySettings) -> Allowance:
    return Allowance(
        requests_per_second=settings.gateway_requests_per_second,
        burst=settings.gateway_burst,
        concurrent=settings.gateway_concurrent_requests,
    )


async def _gone(request: Request, exc: Exception) -> Response:
    """The client went away: nobody reads this, but the metrics see the status."""
    return Response(status_code=499)
