"""Routes that rooms bring, in more than one application."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.testclient import TestClient

from kit.routes import add_routes


def test_a_router_serves_several_applications_each_with_its_own_state_and_what_it_brings_itself() -> None:
    def caller(request: Request) -> str:
        return request.headers["caller"]

    router = APIRouter(prefix="/v1", dependencies=[Depends(caller)], responses={418: {"description": "tea"}})

    @router.get("/name")
    def name(request: Request) -> str:
        return str(request.app.state.name)

    for expected in ("one", "two"):
        app = FastAPI()
        app.state.name = expected
        add_routes(app, router)
        with TestClient(app) as http:
            assert http.get("/v1/name", headers={"caller": "ann"}).json() == expected
        assert set(app.openapi()["paths"]["/v1/name"]["get"]["responses"]) == {"200", "418"}
