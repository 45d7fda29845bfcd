"""The class of a request becomes vLLM's priority, whatever the client says about it."""

from __future__ import annotations

from typing import Any

import pytest

from serving.engine.priority import Priority

Headers = list[tuple[bytes, bytes]]


async def passed_on(scope: dict[str, Any]) -> dict[str, Any]:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    async def never() -> Any:
        raise AssertionError("nothing is read here")

    async def nothing(message: Any) -> None:
        raise AssertionError("nothing is answered here")

    await Priority(app)(scope, never, nothing)
    (result,) = seen
    assert isinstance(result, dict)
    return result


@pytest.mark.parametrize(
    ("headers", "priority"),
    [
        ([], b"0"),
        ([(b"x-lorry-class", b"live")], b"0"),
        ([(b"x-lorry-class", b"batch")], b"1"),
        ([(b"x-lorry-class", b"batch"), (b"x-vllm-priority", b"-1000")], b"1"),
        ([(b"X-Vllm-Priority", b"-1000"), (b"X-Lorry-Class", b"batch")], b"1"),
    ],
)
async def test_the_class_decides_and_a_clients_own_priority_is_dropped(headers: Headers, priority: bytes) -> None:
    original = [(b"content-type", b"application/json"), *headers]
    scope = await passed_on({"type": "http", "path": "/v1/completions", "headers": original})
    assert [value for name, value in scope["headers"] if name.lower() == b"x-vllm-priority"] == [priority]
    assert (b"content-type", b"application/json") in scope["headers"]
    assert original[1:] == headers, "the scope of those outside is not touched"


async def test_what_is_no_request_passes_as_it_is() -> None:
    scope = {"type": "lifespan"}
    assert await passed_on(scope) is scope
