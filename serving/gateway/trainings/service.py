"""The training service, as the gateway calls it: always with the tenant, so that nobody reaches another's jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from kit.lines import async_lines
from kit.tls import authorities
from serving.errors import TrainingRefused, TrainingUnavailable
from serving.gateway.passage.network import network
from serving.gateway.trainings.schemas import Training, TrainingBody, TrainingDetails, TrainingEvents, TrainingPage

Verb = Literal["cancel", "pause", "resume", "retry"]
_B = TypeVar("_B", bound=BaseModel)
_RELAYED = frozenset({404, 409, 422, 429})
_TIMEOUT_SECONDS = 30.0
_SILENCE_SECONDS = 60.0  # the service says every 15 s that it is still there
_UNSET = "this gateway has no training service: LORRY_TRAINING_URL is not set"


class TrainingService:
    """One training service, or none; an async context manager."""

    def __init__(self, *, url: str | None, token: SecretStr | None) -> None:
        """Connect to nothing yet; without `url`, every call is refused."""
        self._http: httpx.AsyncClient | None = None
        if url is not None:
            headers = {"authorization": f"Bearer {token.get_secret_value() if token else ''}"}
            self._http = httpx.AsyncClient(
                base_url=url,
                headers=headers,
                timeout=_TIMEOUT_SECONDS,
                transport=network(),
                verify=authorities(),
                trust_env=False,
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def submit(self, tenant: str, user: str, body: TrainingBody) -> Training:
        """Queue a training.

        Raises:
            TrainingRefused: when the user has one already, there is nothing to train on, or the quota is used up.
            TrainingUnavailable: when the service does not answer.
        """
        path = f"/v1/tenants/{tenant}/users/{user}/trainings"
        return await self._call(Training, "POST", path, json=body.model_dump())

    async def list(
        self, tenant: str, *, user: str | None, states: list[str], before: str | None, limit: int
    ) -> TrainingPage:
        """Return one page of a tenant's trainings, the latest first."""
        params: dict[str, Any] = {"tenant": tenant, "user": user, "state": states, "before": before, "limit": limit}
        given = {name: value for name, value in params.items() if value not in (None, [])}
        page = await self._call(_Page, "GET", "/v1/trainings", params=given)
        return TrainingPage(trainings=page.jobs, next_cursor=page.next_before)

    async def get(self, tenant: str, training_id: str) -> TrainingDetails:
        """Return one training; of a service of an earlier release, without its dataset."""
        return await self._call(TrainingDetails, "GET", f"/v1/trainings/{training_id}", params={"tenant": tenant})

    async def steer(self, tenant: str, training_id: str, verb: Verb) -> Training:
        """End a training, have it wait or go on, or try it again.

        Raises:
            TrainingRefused: when there is no such training, or its state does not allow that.
            TrainingUnavailable: when the service does not answer.
        """
        return await self._call(Training, "POST", f"/v1/trainings/{training_id}/{verb}", params={"tenant": tenant})

    async def events(self, tenant: str, training_id: str, *, after: int) -> TrainingEvents:
        """Return what has happened to a training."""
        params = {"tenant": tenant, "after": after}
        return await self._call(TrainingEvents, "GET", f"/v1/trainings/{training_id}/events", params=params)

    @asynccontextmanager
    async def stream(
        self, tenant: str, training_id: str, *, after: int, last_event_id: str | None
    ) -> AsyncIterator[AsyncIterator[str]]:
        """Open the stream of a training's events and yield its lines; leaving the block closes it.

        Raises:
            TrainingRefused, TrainingUnavailable: when it does not begin. What breaks off later rises from the lines.
        """
        http = self._require()
        is_id = last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit()
        headers = {"accept": "text/event-stream"} | ({"last-event-id": str(last_event_id)} if is_id else {})
        params: dict[str, str | int] = {"tenant": tenant, "after": after}
        path = f"/v1/trainings/{training_id}/events"
        try:
            async with http.stream(
                "GET",
                path,
                params=params,
                headers=headers,
                timeout=httpx.Timeout(_TIMEOUT_SECONDS, read=_SILENCE_SECONDS),
            ) as response:
                if response.status_code >= 400:
                    await response.aread()
                    raise _refusal(response)
                yield _lines(response)
        except httpx.HTTPError as exc:
            raise TrainingUnavailable from exc

    async def _call(
        self,
        answer: type[_B],
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
    ) -> _B:
        http = self._require()
        try:
            response = await http.request(method, path, params=params, json=json)
        except httpx.HTTPError as exc:
            raise TrainingUnavailable from exc
        if response.status_code >= 400:
            raise _refusal(response)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as exc:
            raise TrainingUnavailable("the training service's answer is not one of this version") from exc

    def _require(self) -> httpx.AsyncClient:
        if self._http is None:
            raise TrainingUnavailable(_UNSET)
        return self._http


class _Page(BaseModel):
    jobs: list[Training]
    next_before: str | None


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    try:
        async for line in async_lines(response.aiter_bytes()):
            yield line
    except httpx.HTTPError as exc:
        raise TrainingUnavailable from exc


def _refusal(response: httpx.Response) -> TrainingRefused | TrainingUnavailable:
    if response.status_code not in _RELAYED:
        return TrainingUnavailable(f"the training service answered {response.status_code}")
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    found = problem if isinstance(problem, dict) else {}
    reason = str(found.get("type", "")).rpartition(":")[2]
    details = {name: found[name] for name in ("job_id", "retry_after_seconds", "errors") if name in found}
    refused = TrainingRefused(
        str(found.get("detail") or "the training service refused"), field=found.get("field"), reason=reason, **details
    )
    refused.status_code = response.status_code
    return refused
