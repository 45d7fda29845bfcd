"""Anthropic's Messages and Message Batches over real HTTP, in this process: answers well, or fails as it is told to.

A stand-in because the real service costs money and never fails on demand. It checks what it is sent as the service
does: the key, unique custom ids of the allowed form, that only ended batches give results or are deleted.
"""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tests.support.question_answers import good_answer

KEY = "key-for-tests-only"
Route = Literal["ask", "count", "create", "list", "retrieve", "results", "cancel", "delete"]
Outcome = Literal["succeeded", "errored", "refused", "expired", "canceled", "malformed", "damaged_line", "missing"]


@dataclass
class Failure:
    """One reply that is no answer: a status, with what the service says, or a cut connection.

    `after` lets the service do its work first: the caller cannot know.
    """

    status: int = 500
    kind: str = "api_error"
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False
    cut: bool = False


@dataclass
class Batch:
    """One batch as the service keeps it."""

    id: str
    requests: list[dict[str, Any]]
    created_at: datetime
    looks_left: int
    status: str = "in_progress"
    outcomes: dict[str, Outcome] = field(default_factory=dict)


@dataclass
class ClaudeServer:
    """What a test sets and reads. `outcome` decides each item's fate by (custom_id, how often it was asked so far)."""

    answer: Callable[[dict[str, Any]], str] = lambda params: good_answer(shown(params), task(params))
    outcome: Callable[[str, int], Outcome] = lambda custom_id, asked: "succeeded"
    looks: int = 1
    failures: dict[Route, deque[Failure]] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)
    sent: list[dict[str, Any]] = field(default_factory=list)
    stop_reason: str = "end_turn"
    cut_results_after: int | None = None
    created: int = 0

    def fail(self, route: Route, *failures: Failure) -> None:
        """Have the next calls of a route fail, in this order."""
        self.failures.setdefault(route, deque()).extend(failures)

    def app(self) -> FastAPI:
        """The service's routes."""
        app = FastAPI()
        app.add_api_route("/v1/messages", self._route("ask", self._ask), methods=["POST"])
        app.add_api_route("/v1/messages/count_tokens", self._route("count", self._count), methods=["POST"])
        app.add_api_route("/v1/messages/batches", self._route("create", self._create), methods=["POST"])
        app.add_api_route("/v1/messages/batches", self._route("list", self._list), methods=["GET"])
        one = "/v1/messages/batches/{batch_id}"
        app.add_api_route(one, self._route("retrieve", self._retrieve), methods=["GET"])
        app.add_api_route(one, self._route("delete", self._delete), methods=["DELETE"])
        app.add_api_route(f"{one}/results", self._route("results", self._results), methods=["GET"])
        app.add_api_route(f"{one}/cancel", self._route("cancel", self._cancel), methods=["POST"])
        return app

    def _route(self, name: Route, handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            self.calls[name] += 1
            keys = {request.headers.get("x-api-key"), request.headers.get("authorization", "").removeprefix("Bearer ")}
            if KEY not in keys:  # the SDK sends it as a bearer token, earlier ones sent x-api-key
                return refusal(401, "authentication_error", "invalid key")
            failure = self.failures[name].popleft() if self.failures.get(name) else None
            if failure is not None and not failure.after:
                return _failed(failure)
            response: Response = await handler(request)
            return response if failure is None else _failed(failure)

        return handle

    async def _ask(self, request: Request) -> Response:
        params = await request.json()
        self.sent.append(params)
        self.paid["at once"] += 1
        return JSONResponse(self._message(params, self.answer(params)))

    async def _count(self, request: Request) -> Response:
        params = await request.json()
        return JSONResponse({"input_tokens": len(json.dumps(params["messages"])) // 4 + 300})

    async def _create(self, request: Request) -> Response:
        requests = (await request.json())["requests"]
        ids = [each["custom_id"] for each in requests]
        if len(set(ids)) != len(ids) or not all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", each) for each in ids):
            return refusal(400, "invalid_request_error", "custom_id must be unique and match its pattern")
        if not requests:
            return refusal(400, "invalid_request_error", "requests: at least one is required")
        self.created += 1
        batch = Batch(
            id=f"msgbatch_{self.created:03d}", requests=requests, created_at=datetime.now(UTC), looks_left=self.looks
        )
        self.batches[batch.id] = batch
        self.sent += [each["params"] for each in requests]
        return JSONResponse(self._view(batch, request))

    async def _list(self, request: Request) -> Response:
        for batch in self.batches.values():
            self._pass_time(batch)
        newest = sorted(self.batches.values(), key=lambda batch: batch.created_at, reverse=True)
        data = [self._view(batch, request) for batch in newest]
        return JSONResponse({"data": data, "has_more": False, "first_id": None, "last_id": None})

    async def _retrieve(self, request: Request) -> Response:
        batch = self.batches.get(request.path_params["batch_id"])
        if batch is None:
            return refusal(404, "not_found_error", "no such batch")
        self._pass_time(batch)
        return JSONResponse(self._view(batch, request))

    def _pass_time(self, batch: Batch) -> None:
        if batch.status != "ended":
            batch.looks_left -= 1
            if batch.looks_left < 0:
                self.end(batch)

    def end(self, batch: Batch) -> None:
        """Process a batch: what succeeds is paid for."""
        for each in batch.requests:
            name = each["custom_id"]
            done = "canceled" if batch.status == "canceling" else self.outcome(name, self.asked[name])
            batch.outcomes[name] = done
            self.asked[name] += 1
            if done in {"succeeded", "malformed"}:
                self.paid[name] += 1
        batch.status = "ended"

    async def _results(self, request: Request) -> Response:
        batch = self.batches.get(request.path_params["batch_id"])
        if batch is None or batch.status != "ended":
            return refusal(404, "not_found_error", "no results")
        lines = [self._line(batch, each) for each in reversed(batch.requests)]
        text = [f"{line}\n".encode() for line in lines if line is not None]
        if self.cut_results_after is None:
            return Response(b"".join(text), media_type="application/x-jsonl")
        whole, kept = sum(map(len, text)), text[: self.cut_results_after]
        self.cut_results_after = None

        async def broken() -> AsyncIterator[bytes]:
            for line in kept:
                yield line
            raise ConnectionError("cut")

        return StreamingResponse(broken(), headers={"content-length": str(whole)})

    async def _cancel(self, request: Request) -> Response:
        batch = self.batches[request.path_params["batch_id"]]
        if batch.status == "ended":
            return refusal(400, "invalid_request_error", "the batch has ended")
        batch.status = "canceling"
        self.canceled.append(batch.id)
        return JSONResponse(self._view(batch, request))

    async def _delete(self, request: Request) -> Response:
        batch = self.batches.get(request.path_params["batch_id"])
        if batch is None:
            return refusal(404, "not_found_error", "no such batch")
        if batch.status != "ended":
            return refusal(400, "invalid_request_error", "only ended batches can be deleted")
        del self.batches[batch.id]
        self.deleted.append(batch.id)
        return JSONResponse({"id": batch.id, "type": "message_batch_deleted"})

    def _line(self, batch: Batch, each: dict[str, Any]) -> str | None:
        name, params = each["custom_id"], each["params"]
        outcome = batch.outcomes[name]
        if outcome == "missing":
            return None
        if outcome == "damaged_line":
            return '{"custom_id": "' + name + '", "result": {"type": "succ'
        error = {"errored": "api_error", "refused": "invalid_request_error"}.get(outcome)
        result: dict[str, Any]
        if error is not None:
            detail = {"type": error, "message": "something about this request"}
            result = {"type": "errored", "error": {"type": "error", "error": detail, "request_id": "req_1"}}
        elif outcome in {"expired", "canceled"}:
            result = {"type": outcome}
        else:
            text = '{"pairs": [{"question": "What' if outcome == "malformed" else self.answer(params)
            result = {"type": "succeeded", "message": self._message(params, text)}
        return json.dumps({"custom_id": name, "result": result})

    def _message(self, params: dict[str, Any], text: str) -> dict[str, Any]:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": params["model"],
            "content": [{"type": "text", "text": text}],
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": 100,
                "output_tokens": 200,
                "cache_creation_input_tokens": 1000,
                "cache_read_input_tokens": 500,
                "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 0},
            },
        }

    def _view(self, batch: Batch, request: Request) -> dict[str, Any]:
        ended = batch.status == "ended"
        counts = Counter(_counted(outcome) for outcome in batch.outcomes.values())
        names = ("succeeded", "errored", "expired", "canceled")
        url = f"{str(request.base_url).rstrip('/')}/v1/messages/batches/{batch.id}/results"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": batch.status,
            "request_counts": {
                **{name: counts[name] if ended else 0 for name in names},
                "processing": 0 if ended else len(batch.requests),
            },
            "created_at": batch.created_at.isoformat(),
            "expires_at": (batch.created_at + timedelta(hours=24)).isoformat(),
            "ended_at": datetime.now(UTC).isoformat() if ended else None,
            "cancel_initiated_at": None,
            "archived_at": None,
            "results_url": url if ended else None,
        }


def _counted(outcome: Outcome) -> str:
    return {"malformed": "succeeded", "damaged_line": "succeeded", "missing": "succeeded", "refused": "errored"}.get(
        outcome, outcome
    )


def cut_connection() -> Response:
    """A response that breaks off."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"{"
        raise ConnectionError("cut")

    return StreamingResponse(broken(), headers={"content-length": "1000"})


def _failed(failure: Failure) -> Response:
    if failure.cut:
        return cut_connection()
    return refusal(failure.status, failure.kind, "as the test wants it", headers=failure.headers)


def refusal(status: int, kind: str, message: str, *, headers: dict[str, str] | None = None) -> Response:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return JSONResponse(body, status_code=status, headers=headers)


def shown(params: dict[str, Any]) -> str:
    """What a request says about the person."""
    text: str = params["messages"][0]["content"][0]["text"]
    return text


def task(params: dict[str, Any]) -> str:
    """What a request asks for."""
    text: str = params["messages"][0]["content"][1]["text"]
    return text
