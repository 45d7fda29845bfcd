"""An endpoint of the OpenAI chat protocol over real HTTP, in this process: answers well, or fails as it is told to."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from tests.support.claude_server import KEY, Failure, cut_connection
from tests.support.question_answers import good_answer


@dataclass
class OpenAIServer:
    """What a test sets and reads. `formats` are the response formats that it knows, `limit` its name for that."""

    answer: Callable[[dict[str, Any]], str] = lambda body: good_answer(body["messages"][1]["content"], task(body))
    formats: tuple[str, ...] = ("json_schema", "json_object", "text")
    limit: str = "max_tokens"
    failures: deque[Failure] = field(default_factory=deque)
    fails: Callable[[dict[str, Any]], Failure | None] = lambda body: None
    reply: Callable[[dict[str, Any]], Any] | None = None
    finish_reason: str = "stop"
    seconds: float = 0.0
    calls: int = 0
    at_once: int = 0
    most_at_once: int = 0
    paid: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def app(self) -> FastAPI:
        """The one route."""
        app = FastAPI()
        app.add_api_route("/v1/chat/completions", self._chat, methods=["POST"], response_model=None)
        return app

    async def _chat(self, request: Request) -> Response:
        self.calls += 1
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return JSONResponse({"error": {"message": "wrong key"}}, status_code=401)
        body = await request.json()
        failure = self.failures.popleft() if self.failures else self.fails(body)
        if failure is not None and failure.cut:
            return cut_connection()
        if failure is not None:
            error = {"error": {"message": "as the test wants it", "type": failure.kind}}
            return JSONResponse(error, status_code=failure.status, headers=failure.headers)
        if self.limit not in body:
            error = {"message": f"Unsupported parameter: use '{self.limit}' instead.", "code": "unsupported_parameter"}
            return JSONResponse({"error": error}, status_code=400)
        wanted = body.get("response_format", {"type": "text"})["type"]
        if wanted not in self.formats:
            return JSONResponse({"error": {"message": f"response_format {wanted} is not supported"}}, status_code=400)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.seconds)
        self.at_once -= 1
        self.bodies.append(body)
        self.paid[body["messages"][1]["content"]] += 1
        if self.reply is not None:
            return JSONResponse(self.reply(body))
        message = {"role": "assistant", "content": self.answer(body)}
        usage = {"prompt_tokens": 1000, "completion_tokens": 300, "total_tokens": 1300}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return JSONResponse({"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage})


def task(body: dict[str, Any]) -> str:
    """What a request asks for, without the turns."""
    text: str = body["messages"][1]["content"]
    return text[text.rindex("\nWrite ") :]
