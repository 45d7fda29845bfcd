"""Anthropic's Messages and Message Batches, as much as a question writer needs: tried again when that is safe.

Everything but `submit` may be repeated at will. `submit` costs money each time it succeeds, so it is never repeated
when it is unknown whether the service took it: `SubmissionUncertain` says so, and the caller looks for the batch.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

import httpx2
from anthropic import APIConnectionError, APIStatusError, AsyncAnthropic
from anthropic.types import Message
from anthropic.types.messages import MessageBatch

from kit.errors import LorryError
from training.errors import WriterRefused, WriterUnavailable
from training.writers.cost import TokenUsage
from training.writers.remote import KeptAnswer, host_of, without_echo
from training.writers.settings import WriterSettings

PUBLIC_URL = "https://api.anthropic.com"
ResultKind = Literal["succeeded", "errored", "canceled", "expired"]
T = TypeVar("T")
_NOT_FOUND = 404
_PASSING = {408, 409, 429, 500, 502, 503, 504, 529}
_NOT_TAKEN = {408, 409, 413, 429, 529}  # the service says that it did not take the request
_FIRST_PAUSE_SECONDS = 0.5


class SubmissionUncertain(LorryError):
    """It is not known whether the batch was submitted."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of a batch's results; `answer` is given when it succeeded, `error` when it did not."""

    item_id: str
    kind: ResultKind
    answer: KeptAnswer | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class BatchView:
    """How a batch stands; `created_at` is in seconds since 1970, `requests` is how many it was submitted with."""

    id: str
    status: Literal["in_progress", "canceling", "ended"]
    created_at: float
    requests: int
    finished: int


class ClaudeService:
    """One account at one base URL; use it as an async context manager."""

    def __init__(self, settings: WriterSettings) -> None:
        if settings.writer_api_key is None:
            raise WriterRefused("Claude needs a key: set LORRY_WRITER_API_KEY", field="LORRY_WRITER_API_KEY")
        self._settings = settings
        self._client = AsyncAnthropic(
            api_key=settings.writer_api_key.get_secret_value(),
            base_url=settings.writer_url or PUBLIC_URL,
            timeout=settings.writer_timeout_seconds,
            max_retries=0,  # ours know which call may be repeated
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def ask(self, params: dict[str, Any]) -> KeptAnswer:
        """Return the answer to one request, at once and at the full price."""
        return _answer(await self._patiently(lambda: self._client.messages.create(**params), sent=[params]))

    async def count_tokens(self, params: dict[str, Any]) -> int | None:
        """Return how many tokens a request would send; None at a service that does not count, as some proxies."""
        counted = {key: value for key, value in params.items() if key != "max_tokens"}
        try:
            count = await self._patiently(lambda: self._client.messages.count_tokens(**counted), sent=[params])
            return count.input_tokens
        except _Missing:
            return None

    async def submit(self, requests: list[dict[str, Any]]) -> BatchView:
        """Submit a batch; tried again only where the service says that it did not take it.

        Raises:
            SubmissionUncertain: it may have been taken: look for it before anything else is submitted.
            WriterUnavailable: it was not taken, several times.
            WriterRefused: it never will be.
        """

        async def create() -> MessageBatch:
            try:
                return await self._client.messages.batches.create(requests=requests)  # type: ignore[arg-type]
            except APIStatusError as exc:
                if exc.status_code >= 500 and exc.status_code not in _NOT_TAKEN:
                    raise SubmissionUncertain from exc
                raise
            except APIConnectionError as exc:
                raise SubmissionUncertain from exc

        return _view(await self._patiently(create, sent=[each["params"] for each in requests]))

    async def batch(self, batch_id: str) -> BatchView | None:
        """Return how a batch stands; None when the service does not know it."""
        try:
            return _view(await self._patiently(lambda: self._client.messages.batches.retrieve(batch_id)))
        except _Missing:
            return None

    async def batches_since(self, first: float) -> list[BatchView]:
        """Return the account's batches created since then, in seconds since 1970; newest first."""

        async def listed() -> list[BatchView]:
            found = []
            async for batch in self._client.messages.batches.list(limit=100):
                view = _view(batch)
                if view.created_at < first:
                    break
                if batch.archived_at is None:
                    found.append(view)
            return found

        return await self._patiently(listed)

    async def results(self, batch_id: str) -> AsyncIterator[Result | None]:
        """Yield every line of an ended batch's results; None for one that cannot be read.

        Raises:
            WriterUnavailable: they were cut off: read them again.
        """
        stream = await self._patiently(lambda: self._client.messages.batches.results(batch_id))
        response = stream.http_response
        try:
            async for line in response.aiter_lines():
                if line.strip():
                    yield _result(line)
        except httpx2.TransportError as exc:
            raise WriterUnavailable(f"the results of a batch were cut off: {type(exc).__name__}") from exc
        finally:
            await response.aclose()

    async def cancel(self, batch_id: str) -> None:
        """Ask for a running batch to end."""
        try:
            await self._patiently(lambda: self._client.messages.batches.cancel(batch_id))
        except (_Missing, WriterRefused):
            return  # it has ended, or is gone: what `batch` says counts

    async def delete(self, batch_id: str) -> None:
        """Delete an ended batch and its results; a success when it is gone already."""
        try:
            await self._patiently(lambda: self._client.messages.batches.delete(batch_id))
        except _Missing:
            return

    async def _patiently(self, call: Callable[[], Awaitable[T]], *, sent: Sequence[dict[str, Any]] = ()) -> T:
        """Try a call several times, pausing as long as the service asks, or longer each time.

        What was `sent` is never repeated by an error, whatever the service says of it.
        """
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(1, self._settings.writer_attempts + 1):
            wait = None
            try:
                return await call()
            except APIStatusError as exc:
                wait = _retry_after(exc)
                error = _translate(exc, wait, sent)
            except (APIConnectionError, httpx2.TransportError) as exc:
                error = WriterUnavailable(
                    f"Claude at {host_of(self._settings.writer_url or PUBLIC_URL)} does not answer:"
                    f" {type(exc.__cause__ or exc).__name__}"
                )
                error.__cause__ = exc
            if not isinstance(error, WriterUnavailable) or attempt == self._settings.writer_attempts:
                raise error
            longest = self._settings.writer_longest_pause_seconds
            if wait is not None and wait > longest:
                raise error  # whoever called can do something else meanwhile
            await asyncio.sleep(min(wait if wait is not None else pause, longest))
            pause *= 2
        raise AssertionError("unreachable")


class _Missing(WriterRefused):
    """The service does not know it."""


def _translate(exc: APIStatusError, wait: float | None, sent: Sequence[dict[str, Any]]) -> LorryError:
    """Return our error for one of the service's; its message names no transcript."""
    kind = _error_type(exc.body)
    told = f"Claude answered {exc.status_code} {kind}".strip()
    error: LorryError
    if exc.status_code in _PASSING or exc.status_code >= 500:
        error = WriterUnavailable(told, retry_after_seconds=wait)
    elif exc.status_code == _NOT_FOUND:
        error = _Missing(told)
    elif exc.status_code in {401, 403}:
        error = WriterRefused(f"{told}: check LORRY_WRITER_API_KEY", field="LORRY_WRITER_API_KEY")
    else:
        error = WriterRefused(f"{told}: {without_echo(_message(exc.body), *sent)}")
    error.__cause__ = exc
    return error


def _error_type(body: object) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("type", "")) if isinstance(error, dict) else ""


def _message(body: object) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("message", "")) if isinstance(error, dict) else "no reason given"


def _retry_after(exc: APIStatusError) -> float | None:
    try:
        return max(0.0, float(exc.response.headers.get("retry-after", "")))
    except ValueError:
        return None


def _view(batch: MessageBatch) -> BatchView:
    counts = batch.request_counts
    finished = counts.succeeded + counts.errored + counts.canceled + counts.expired
    created: Any = batch.created_at
    moment = created if isinstance(created, datetime) else datetime.fromisoformat(str(created))
    return BatchView(
        id=batch.id,
        status=batch.processing_status,
        created_at=moment.timestamp(),
        requests=counts.processing + finished,
        finished=finished,
    )


def _answer(message: Message) -> KeptAnswer:
    text = "".join(block.text for block in message.content if block.type == "text")
    usage = message.usage
    made = usage.cache_creation
    long = made.ephemeral_1h_input_tokens if made else 0
    return KeptAnswer(
        text=text,
        stop_reason=message.stop_reason,
        usage=TokenUsage(
            requests=1,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_write_1h_tokens=long,
            cache_write_5m_tokens=max(0, (usage.cache_creation_input_tokens or 0) - long),
            cache_read_tokens=usage.cache_read_input_tokens or 0,
        ),
    )


def _result(line: str) -> Result | None:
    """Read one line of results; None when it is damaged."""
    try:
        value = json.loads(line)
        item_id, result = value["custom_id"], value["result"]
        kind: ResultKind = result["type"]
        if kind == "succeeded":
            return Result(item_id=item_id, kind=kind, answer=_answer(Message.model_validate(result["message"])))
        if kind == "errored":
            return Result(item_id=item_id, kind=kind, error=str(result["error"]["error"]["type"]))
        if kind in {"canceled", "expired"}:
            return Result(item_id=item_id, kind=kind)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return None
