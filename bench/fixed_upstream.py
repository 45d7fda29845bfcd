"""`python -m bench.fixed_upstream PORT`: an engine of fixed latency, for what stands before it to be measured.

It answers chats with as many events as `max_tokens` says: the first after `FIRST_SECONDS`, then one every
`EVERY_SECONDS`. A question that is `idle` gets its first event at once and the next after an hour. An event says
in its text when it was written, on the clock that all processes of the machine share.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

FIRST_SECONDS = 0.05
EVERY_SECONDS = 0.025
_HOUR = 3600.0
IDLE = "idle"

app = FastAPI()


@app.get("/health")
async def health() -> dict[str, str]:
    """Say that it runs."""
    return {}


@app.post("/lorry/adapters/{version_id}/prefetch")
async def prefetch(version_id: str) -> dict[str, str]:
    """Take a hint and do nothing."""
    return {"state": "loading"}


@app.post("/v1/chat/completions")
async def chat(request: Request) -> StreamingResponse:
    """Answer as vLLM streams, at fixed times."""
    body = await request.json()
    is_idle = body["messages"][-1]["content"] == IDLE
    return StreamingResponse(_events(body["model"], body["max_tokens"], is_idle), media_type="text/event-stream")


async def _events(model: str, count: int, is_idle: bool) -> AsyncIterator[str]:
    due = time.monotonic() + (0.0 if is_idle else FIRST_SECONDS)
    for number in range(count):
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        delta = {"content": f"{time.monotonic():.6f}"}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
        yield f"data: {json.dumps(event, separators=(',', ':'))}\n\n"
        due += _HOUR if is_idle and not number else EVERY_SECONDS
    yield "data: [DONE]\n\n"


if __name__ == "__main__":
    gc.collect()
    gc.freeze()  # a full collection here would be counted as the latency of whatever is measured
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
