"""The objects that live as long as the process, found by their class: one of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.applications import Starlette
from starlette.requests import Request

Kind = TypeVar("Kind")


def keep(app: Starlette, *services: object) -> None:
    """Keep these for as long as the process lives."""
    app.state.services = {type(each): each for each in services}


def kept(app: Starlette, kind: type[Kind]) -> Kind:
    """Return the process's object of this class; a class that nobody kept is a mistake of the program (KeyError)."""
    found: Kind = app.state.services[kind]
    return found


def service(kind: type[Kind]) -> Callable[[Request], Awaitable[Kind]]:
    """Return the dependency by which an endpoint gets the process's object of this class."""

    async def find(request: Request) -> Kind:  # a coroutine: FastAPI runs plain functions in threads
        return kept(request.app, kind)

    return find
