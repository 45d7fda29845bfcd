"""Routes of rooms, put into an application as they are."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI


def add_routes(app: FastAPI, *routers: APIRouter) -> None:
    """Put every route of these routers behind those that `app` has.

    `FastAPI.include_router` makes each route a second time, which takes a service an eighth of a second. It must where
    it adds a prefix or dependencies, or has a router's lifespan run; most of Lorry's routers need none of that.
    """
    for router in routers:
        app.router.routes.extend(router.routes)
