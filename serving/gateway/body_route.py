"""Routes whose JSON bodies, where large, are parsed and validated beside the event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from kit.beside import beside, parse_json

_BODY: Final = "body"
_UNFIT: Final = b""  # stands for a body that was found wrong: no model takes it, nor looks for attributes in it
_MOST_ERRORS = 100  # a large body can have one in every value


class BodyRoute(APIRoute):
    """FastAPI's route for a body of one model. What is refused, and what of several things first, stays as it is."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's own handler, for a request that brings its body as a model.

        Raises:
            TypeError: when the model takes anything at all, so that nothing could be refused.
        """
        handle, field = super().get_route_handler(), self.body_field
        if field is None:
            return handle
        if not field.validate(_UNFIT)[1]:
            raise TypeError(f"the body of {self.path} must be an object")

        async def app(request: Request) -> Response:
            reading = _Reading(request, field=field)
            try:
                return await handle(reading)
            except RequestValidationError as exc:
                if not reading.errors:
                    raise
                others = [error for error in exc.errors() if error["loc"][0] != _BODY]
                raise RequestValidationError([*others, *reading.errors]) from exc

        return app


class _Reading(Request):
    """A request whose JSON body comes validated, so that FastAPI has nothing left to do with it."""

    def __init__(self, request: Request, *, field: Any) -> None:
        super().__init__(request.scope, request.receive)
        self.errors: list[Any] = []
        self._field = field

    async def json(self) -> Any:
        """Return the body as its model.

        Raises:
            ValueError: for what is no JSON.
        """
        body = await self.body()
        return await beside(len(body), self._read, body)

    def _read(self, body: bytes) -> Any:
        made, errors = self._field.validate(parse_json(body), loc=(_BODY,))
        self.errors = errors[:_MOST_ERRORS]
        return _UNFIT if errors else made
