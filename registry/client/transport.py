"""How every call reaches the registry: one connection pool, patience, errors turned back into exceptions."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
)

from kit.errors import BeingErased, InvalidName, LorryError, problem_code
from kit.names import check_name
from kit.tls import authorities
from registry.client.object_writer import ObjectWriter
from registry.errors import InvalidReference, RegistryError, RegistryUnavailable, Unauthorized

_T = TypeVar("_T")
_ATTEMPTS = 4
_NEVER = float("inf")
_PROBLEM = "urn:lorry:problem:"


class Transport:
    """One registry, reached over HTTP; knows no resource."""

    def __init__(
        self,
        *,
        url: str,
        token: str,
        actor: str = "registry-client",
        timeout_seconds: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: where the registry listens, without ``/v1``.
            token: its bearer token; it is never sent to the object store.
            actor: the program's name in the audit trail.
            timeout_seconds: how long one attempt of a call may take.
            transport: how to reach the registry instead of by TCP.

        Raises:
            Unauthorized: for a token that cannot be sent, as an empty one.
        """
        if not token or not token.isascii() or not token.isprintable() or token != token.strip():
            raise Unauthorized("the registry's token is empty or has characters that no header can carry")
        headers = {"authorization": f"Bearer {token}", "x-lorry-actor": check_name(actor, field="actor")}
        # Servers close an idle connection after 5 s; leaving before them avoids writing into one that is just closing.
        limits = httpx.Limits(keepalive_expiry=2.0)
        self._api = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=timeout_seconds,
            transport=transport,
            limits=limits,
            verify=authorities(),
            trust_env=False,
        )
        self.files = httpx.AsyncClient(timeout=timeout_seconds, verify=authorities(by_environment=True))
        self.uploads = ObjectWriter(timeout_seconds=timeout_seconds)

    async def close(self) -> None:
        """Close every connection."""
        await self._api.aclose()
        await self.files.aclose()
        self.uploads.close()

    async def call(
        self,
        answer: type[_T],
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        params: dict[str, Any] | None = None,
        timeout_seconds: float | None = None,
        attempts: int = _ATTEMPTS,
        within_seconds: float = _NEVER,
        once: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> _T:
        """Send one call, patiently, and read its answer as `answer`.

        No attempt begins after `within_seconds`. `once` is for a POST that would do something else the second time: its
        attempts share an idempotency key, so that one whose answer was lost is not done again.

        Raises:
            RegistryError: the exception that the registry raised, or RegistryUnavailable when it does not answer.
        """
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_seconds is None else httpx.Timeout(timeout_seconds)
        request = self._api.build_request(
            method,
            path,
            content=None if body is None else body.model_dump_json(),
            headers={
                **(headers or {}),
                **({} if body is None else {"content-type": "application/json"}),
                **({"idempotency-key": uuid.uuid4().hex} if once else {}),
            },
            params=params,
            timeout=timeout,
        )
        content = await patiently(lambda: self._send(request), attempts=attempts, within_seconds=within_seconds)
        try:
            found: _T = _reader_of(cast(Hashable, answer)).validate_json(content)
        except ValidationError as exc:
            raise RegistryError("the answer is not one of this registry's version; do the two match?") from exc
        return found

    async def _send(self, request: httpx.Request) -> bytes:
        try:
            response = await self._api.send(request)
        except httpx.TransportError as exc:
            raise RegistryUnavailable(f"the registry did not answer: {type(exc).__name__}") from exc
        if response.is_success:
            return response.content
        raise error_from(response)


@lru_cache(maxsize=256)
def _reader_of(answer: Any) -> TypeAdapter[Any]:
    """Return what reads answers of one type; to make it anew takes longer than to read one."""
    return TypeAdapter(answer)


def error_from(response: httpx.Response) -> LorryError:
    """Turn a problem-details answer back into the error that the registry raised."""
    try:
        problem: dict[str, Any] = json.loads(response.content)
        code = str(problem["type"]).removeprefix(_PROBLEM)
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        code, detail, problem = "", f"the registry answered {response.status_code}", {}
    if response.status_code in {502, 503, 504}:
        return RegistryUnavailable(detail)
    field = problem.get("field")
    if code == "invalid-request":
        errors = problem.get("errors") or [{}]
        return InvalidReference(detail, field=errors[0].get("field"))
    known = {"type", "title", "status", "detail", "field", "message"}
    details = {str(name): value for name, value in problem.items() if name not in known}
    error = _ERRORS.get(code, RegistryError)
    return error(detail, field=field, **details)


def _error_classes(root: type[LorryError]) -> Iterator[type[LorryError]]:
    yield root
    for child in root.__subclasses__():
        yield from _error_classes(child)


_ERRORS: dict[str, type[LorryError]] = {
    problem_code(error): error for error in (*_error_classes(RegistryError), InvalidName, BeingErased)
}


async def patiently(
    call: Callable[[], Awaitable[_T]], *, attempts: int = _ATTEMPTS, within_seconds: float = _NEVER
) -> _T:
    """Repeat a call, a few times and ever more slowly, while nobody answers; no attempt begins after `within_seconds`.

    So a service that refuses connections while it restarts is asked again, and one that hangs is waited for once.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(RegistryUnavailable),
        stop=stop_after_attempt(attempts) | stop_after_delay(within_seconds),
        wait=wait_exponential_jitter(multiplier=0.1, max=2.0),
        reraise=True,
    )

    async def attempt() -> _T:  # tenacity does not await what a plain callable returns
        return await call()

    return await retrying(attempt)
