"""What needs no key: health, readiness, version, metrics."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from serving.errors import EngineUnavailable, GatewayDraining
from serving.gateway.endpoints import describe_refusal

router = APIRouter(tags=["operations"])


def installed_version() -> str:
    """Return which Lorry this is."""
    try:
        return version("lorry")
    except PackageNotFoundError:
        return "unknown"


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the process runs; asks nothing of anybody."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: describe_refusal(503)})
async def readyz(request: Request) -> dict[str, str]:
    """Say that this gateway is to get requests: it is not stopping, and database, registry and every engine answer."""
    state = request.app.state
    if state.is_draining:
        raise GatewayDraining
    await state.database.check()
    await state.registry.list_bases()
    if away := await state.engines.away():
        raise EngineUnavailable(f"{', '.join(away)}: no answer")
    return {"status": "ready"}


@router.get("/version")
async def get_version() -> dict[str, str]:
    """Say which version of Lorry this is."""
    return {"version": installed_version()}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return the gateway's measures for Prometheus."""
    await request.app.state.erasure_gauges.refresh(request.app.state.database)
    return Response(generate_latest(request.app.state.measures), media_type=CONTENT_TYPE_LATEST)
