"""The routes under ``/lorry/``: what they take and how they answer. The guard has checked the token before.

A body or parameter that is not understood is a 422 that names the field; every refusal is a problem detail.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kit.errors import LorryError, RequestTooLarge
from kit.problems import refusal
from serving.engine.ledger import LoadLedger
from serving.engine.pool.limits import RequestClass
from serving.engine.pool.observer import TierName
from serving.engine.resolver import is_version_id
from serving.engine.steward import Steward
from serving.errors import EngineOutOfTouch, OrderInvalid

_MAX_BODY_BYTES = 64 << 10
_MAX_WAIT_SECONDS = 600
Handler = Callable[[Request], Awaitable[Response]]


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Prefetch(_Order):
    """How urgent it is (live = a request is about to come), and whether to answer only when it is there."""

    kind: RequestClass = Field("batch", alias="class")
    wait: bool = False


class Nothing(_Order):
    """No fields."""


class Evict(_Order):
    """Out of which tier."""

    tier: Literal["host", "disk"] = "host"


class Erase(_Order):
    """What becomes of requests that run on it, and how long to wait for them."""

    leases: Literal["wait", "abort"] = "wait"
    wait_seconds: float = Field(30.0, ge=0, le=_MAX_WAIT_SECONDS)


class Drain(_Order):
    """How long to wait until the last request has left."""

    wait_seconds: float = Field(30.0, ge=0, le=_MAX_WAIT_SECONDS)


class Page(_Order):
    """Which versions to list."""

    model_config = ConfigDict(extra="forbid", strict=False)  # a query holds texts

    tier: TierName = "host"
    after: str = Field("", max_length=64)
    limit: int = Field(1000, ge=1, le=10_000)


OrderT = TypeVar("OrderT", bound=_Order)


@dataclass
class Api:
    """The handlers; `steward` and `ledger` come once the engine runs."""

    ready: Callable[[], Awaitable[JSONResponse]]
    steward: Steward | None = None
    ledger: LoadLedger | None = None

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        for method, path, handler in (
            ("GET", "/residency", self.residency),
            ("GET", "/adapters", self.adapters),
            ("GET", "/adapters/{version_id}", self.adapter),
            ("GET", "/troubles", self.troubles),
            ("GET", "/erasures", self.erasures),
            ("POST", "/adapters/{version_id}/prefetch", self.prefetch),
            ("POST", "/adapters/{version_id}/pin", self.pin),
            ("POST", "/adapters/{version_id}/unpin", self.unpin),
            ("POST", "/adapters/{version_id}/evict", self.evict),
            ("POST", "/adapters/{version_id}/erase", self.erase),
            ("POST", "/drain", self.drain),
            ("POST", "/resume", self.resume),
        ):
            router.add_route(f"/lorry{path}", _answering(handler), methods=[method])
        router.add_api_route("/lorry/ready", self.ready, methods=["GET"])
        return router

    async def residency(self, request: Request) -> Response:
        """What every tier holds and may hold; how many requests run and wait."""
        return JSONResponse(self._steward().residency())

    async def adapters(self, request: Request) -> Response:
        """The versions in one tier, with their bytes, leases, pins and slots."""
        page = _checked(Page, dict(request.query_params))
        return JSONResponse(self._steward().adapters(page.tier, after=page.after, limit=page.limit))

    async def adapter(self, request: Request) -> Response:
        """Where one version is."""
        return JSONResponse(self._steward().adapter(_version(request)))

    async def troubles(self, request: Request) -> Response:
        """The slowest loads, and the versions whose loads fail."""
        self._steward()
        assert self.ledger is not None
        return JSONResponse({"slowest": self.ledger.slowest(), "failing": self.ledger.failing()})

    async def erasures(self, request: Request) -> Response:
        """What was erased or withheld here lately, and what that did where."""
        return JSONResponse({"erasures": self._steward().receipts()})

    async def prefetch(self, request: Request) -> Response:
        """Bring a version into host memory, without a slot; 202 while it is on its way."""
        version_id, order = _version(request), await _read(request, Prefetch)
        state = await self._steward().prefetch(version_id, urgent=order.kind == "live", wait=order.wait)
        answer = {"version_id": version_id, "state": state}
        return JSONResponse(answer, status_code=202 if state == "loading" else 200)

    async def pin(self, request: Request) -> Response:
        """Bring a version into host memory and keep it there."""
        version_id, _ = _version(request), await _read(request, Nothing)
        await self._steward().pin(version_id)
        return JSONResponse({"version_id": version_id, "pinned": True})

    async def unpin(self, request: Request) -> Response:
        """Let a version be evicted again."""
        version_id, _ = _version(request), await _read(request, Nothing)
        return JSONResponse(
            {"version_id": version_id, "pinned": False, "was_pinned": self._steward().unpin(version_id)}
        )

    async def evict(self, request: Request) -> Response:
        """Take a version that nobody uses out of one tier."""
        version_id, order = _version(request), await _read(request, Evict)
        freed_bytes = await self._steward().evict(version_id, order.tier)
        return JSONResponse({"version_id": version_id, "tier": order.tier, "freed_bytes": freed_bytes})

    async def erase(self, request: Request) -> Response:
        """Erase a version everywhere on this engine, and say what that did where."""
        version_id, order = _version(request), await _read(request, Erase)
        receipt = await self._steward().erase(
            version_id, abort=order.leases == "abort", wait_seconds=order.wait_seconds
        )
        return JSONResponse(receipt.to_json())

    async def drain(self, request: Request) -> Response:
        """Take no new requests and wait for those that run."""
        order = await _read(request, Drain)
        return JSONResponse(await self._steward().drain(wait_seconds=order.wait_seconds))

    async def resume(self, request: Request) -> Response:
        """Take requests again."""
        await _read(request, Nothing)
        self._steward().resume()
        return JSONResponse({"draining": False})

    def _steward(self) -> Steward:
        if self.steward is None:
            raise EngineOutOfTouch("The engine is still starting.")
        return self.steward


def _answering(handler: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except LorryError as exc:
            return refusal(exc)

    return answer


def _version(request: Request) -> str:
    version_id = str(request.path_params["version_id"])
    if not is_version_id(version_id):
        raise OrderInvalid("version_id must be v and 32 hexadecimal digits", field="version_id")
    return version_id


async def _read(request: Request, model: type[OrderT]) -> OrderT:
    """Read the body as JSON; none at all means the defaults."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_BODY_BYTES:
            raise RequestTooLarge
    return _checked(model, body or b"{}")


def _checked(model: type[OrderT], value: bytes | dict[str, Any]) -> OrderT:
    try:
        return model.model_validate_json(value) if isinstance(value, bytes) else model.model_validate(value)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "body"
        raise OrderInvalid(f"{field}: {first['msg']}", field=field) from exc
