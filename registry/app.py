"""The registry as a service: wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from kit.background import Errands, again_and_again
from kit.body_limit import BodyLimit
from kit.database import Database
from kit.http_metrics import MeasureRequests
from kit.json_guard import JsonGuard
from kit.master_keys import open_master_keys
from kit.problems import install_problem_handlers
from kit.routes import add_routes
from kit.storage import ObjectStorage
from registry.access import refusals
from registry.artifact.signature import Signer
from registry.artifact.validation import Limits
from registry.catalog import endpoints as catalog_endpoints
from registry.catalog.difference import Comparison
from registry.catalog.listings import Listings
from registry.catalog.resolver import Resolver
from registry.catalog.service import Catalog
from registry.engines import endpoints as engine_endpoints
from registry.engines.directory import EngineDirectory
from registry.idempotency.forgetting import EVERY_SECONDS, forget_old
from registry.idempotency.middleware import IdempotentRequests
from registry.lifecycle import endpoints as lifecycle_endpoints
from registry.lifecycle.aliases import Aliases
from registry.lifecycle.audit import AuditTrail
from registry.lifecycle.erasure import Eraser
from registry.lifecycle.evaluations import Evaluations
from registry.lifecycle.forgetting.forgetter import Forgetter
from registry.lifecycle.policy_book import PolicyBook
from registry.lifecycle.remains import Remains
from registry.lifecycle.standing import Standing
from registry.lifecycle.upkeep import endpoints as upkeep_endpoints
from registry.lifecycle.upkeep.reconcile import Reconciler
from registry.lifecycle.upkeep.retention import Retention
from registry.metrics import RegistryMetrics
from registry.openapi import install_openapi
from registry.publishing import endpoints as publishing_endpoints
from registry.publishing.bases import BaseModels
from registry.publishing.grants import Grants
from registry.publishing.publisher import Publisher, PublishingOptions
from registry.sealing.data_keys import DataKeys
from registry.services import keep, kept
from registry.settings import RegistrySettings


def create_app(settings: RegistrySettings) -> FastAPI:
    """Return the service; it connects when it starts and lets go when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(settings)
        storage = await asyncio.to_thread(ObjectStorage, settings)  # boto3 reads its service description from disk
        limits = Limits(max_adapter_bytes=settings.registry_max_adapter_bytes, max_rank=settings.registry_max_rank)
        data_keys = DataKeys(database, await asyncio.to_thread(open_master_keys, settings))
        remains = Remains(storage, upload_seconds=settings.registry_upload_seconds)
        listings = Listings(database)
        publisher = Publisher(
            database,
            storage,
            data_keys,
            options=PublishingOptions(
                limits=limits,
                upload_seconds=settings.registry_upload_seconds,
                note_seconds=settings.registry_abandoned_seconds / 24,
                concurrent_completes=settings.registry_concurrent_completes,
                scan=settings.adapter_scan == "adaptersentry",
            ),
            signer=Signer.open(settings.signing_private_key_file) if settings.signing_private_key_file else None,
        )
        keep(
            app,
            database,
            storage,
            data_keys,
            publisher,
            Grants(
                database,
                storage,
                data_keys,
                download_seconds=settings.registry_download_seconds,
                lease_seconds=settings.engine_lease_seconds,
            ),
            BaseModels(database),
            Catalog(database),
            Resolver(database),
            listings,
            Comparison(listings),
            Aliases(database),
            Standing(database, remains),
            Eraser(database, remains, lease_seconds=settings.engine_lease_seconds),
            Forgetter(
                database,
                storage,
                lease_seconds=settings.engine_lease_seconds,
                settle_seconds=remains.settle_seconds,
            ),
            Evaluations(database),
            AuditTrail(database),
            PolicyBook(database),
            Retention(database, remains, lease_seconds=settings.engine_lease_seconds),
            Reconciler(
                database,
                storage,
                remains,
                complete=publisher.complete,
                abandoned_seconds=settings.registry_abandoned_seconds,
            ),
            EngineDirectory(database, lease_seconds=settings.engine_lease_seconds),
        )
        chores = Errands(of="registry")
        chores.start(again_and_again(partial(forget_old, database), EVERY_SECONDS, of="registry"))
        try:
            yield
        finally:
            await chores.close()
            await publisher.close()
            await database.close()
            storage.close()

    app = FastAPI(title="Lorry registry", description="Which adapters exist.", version="1", lifespan=lifespan)
    app.state.settings = settings
    app.add_middleware(IdempotentRequests)
    app.add_middleware(JsonGuard)
    app.add_middleware(BodyLimit, max_bytes=settings.registry_max_request_bytes)
    app.state.metrics = RegistryMetrics()
    app.add_middleware(MeasureRequests, metrics=app.state.metrics.requests)
    install_problem_handlers(app)
    rooms = (publishing_endpoints, catalog_endpoints, lifecycle_endpoints, engine_endpoints, upkeep_endpoints)
    add_routes(app, *(room.router for room in rooms))
    install_openapi(app)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that the process runs; asks nothing of anybody."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: refusals()[503]})
    async def readyz(request: Request) -> dict[str, str]:
        """Say that the database and the object store answer, and that every master key in use is held here."""
        await kept(request.app, Database).check()
        await kept(request.app, DataKeys).check()
        await kept(request.app, ObjectStorage).check()
        return {"status": "ready"}

    @app.get("/metrics", include_in_schema=False, response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Return the registry's measures for Prometheus; answers without the database as well."""
        database, engines = kept(request.app, Database), kept(request.app, EngineDirectory)
        return Response(await request.app.state.metrics.render(database, engines), media_type=CONTENT_TYPE_LATEST)

    return app
