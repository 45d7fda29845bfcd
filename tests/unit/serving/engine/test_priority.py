"""The class of a request becomes vLLM's priority, whatever the client says about it."""

from __future__ import annotations

from typing import Any

import pytest

from serving.engine.priority import BATCH_BEHIND_SECONDS, Priority, is_live

Headers = list[tuple[bytes, bytes]]


async def passed_on(scope: dict[str, Any], *, now: float = 0.0) -> dict[str, Any]:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    async def never() -> Any:
        raise AssertionError("nothing is read here")

    async def nothing(message: Any) -> None:
        raise AssertionError("nothing is answered here")

    await Priority(app, clock=lambda: now)(scope, never, nothing)
    (result,) = seen
    assert isinstance(result, dict)
    return result


@pytest.mark.parametrize(
    ("headers", "priority"),
    [
        ([], b"0"),
        ([(b"x-lorry-class", b"live")], b"0"),
        ([(b"x-lorry-class", b"batch")], b"10001"),
        ([(b"x-lorry-class", b"batch"), (b"x-vllm-priority", b"-1000")], b"10001"),
        ([(b"X-Vllm-Priority", b"-1000"), (b"X-Lorry-Class", b"batch")], b"10001"),
    ],
)
async def test_the_class_decides_and_a_clients_own_priority_is_dropped(headers: Headers, priority: bytes) -> None:
    original = [(b"content-type", b"application/json"), *headers]
    scope = await passed_on({"type": "http", "path": "/v1/completions", "headers": original})
    assert [value for name, value in scope["headers"] if name.lower() == b"x-vllm-priority"] == [priority]
    assert (b"content-type", b"application/json") in scope["headers"]
    assert original[1:] == headers, "the scope of those outside is not touched"
    assert is_live(int(priority)) == (priority == b"0")


async def test_batch_goes_behind_the_live_ones_of_the_next_seconds_and_before_all_later_ones() -> None:
    async def number(kind: str, now: float) -> int:
        headers = [(b"x-lorry-class", kind.encode())]
        scope = await passed_on({"type": "http", "path": "/v1/completions", "headers": headers}, now=now)
        return next(int(value) for name, value in scope["headers"] if name == b"x-vllm-priority")

    batch = await number("batch", 100.0)
    assert await number("live", 100.0 + BATCH_BEHIND_SECONDS - 0.01) < batch
    assert await number("live", 100.0 + BATCH_BEHIND_SECONDS + 0.01) > batch
    assert await number("batch", 100.1) > batch


async def test_what_is_no_request_passes_as_it_is() -> None:
    scope = {"type": "lifespan"}
    assert await passed_on(scope) is scope
