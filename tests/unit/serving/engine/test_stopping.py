from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from vllm.v1.engine.async_llm import AsyncLLM

from serving.engine import stopping
from serving.engine.stopping import before_shutdown
from tests.support.waiting import settle

LEFT = "ended by EngineDeadError"


class Engine:
    """An engine that notes what happens to it, and is its own table of requests."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen
        self.output_processor = self

    def propagate_error(self, error: Exception) -> None:
        self._seen.append(f"ended by {type(error).__name__}")

    def shutdown(self, timeout: float | None = None) -> None:
        self._seen.append(f"shut down, {timeout}")


def watched(seen: list[str], engine: Engine | None = None) -> Engine:
    engine = engine or Engine(seen)

    async def let_end(seconds: float) -> None:
        await asyncio.sleep(0.01)
        seen.append(f"{seconds:.0f} s to end")

    before_shutdown(cast("AsyncLLM", engine), lambda: seen.append("told"), let_end=let_end, seconds=10)
    return engine


async def test_a_shutdown_from_another_thread_waits_until_everybody_is_told_and_who_runs_has_ended() -> None:
    seen: list[str] = []
    await asyncio.to_thread(watched(seen).shutdown, timeout=3)

    assert seen == ["told", "10 s to end", "shut down, 3", LEFT]


async def test_a_shutdown_on_the_loop_itself_tells_at_once() -> None:
    seen: list[str] = []
    watched(seen).shutdown()

    assert seen == ["told", "shut down, None", LEFT]


def test_a_shutdown_after_the_loop_has_ended_only_shuts_down() -> None:
    seen: list[str] = []

    async def build() -> Engine:
        return watched(seen)

    asyncio.run(build()).shutdown()

    assert seen == ["shut down, None"]


async def test_a_shutdown_that_fails_leaves_nobody_waiting_either() -> None:
    seen: list[str] = []
    engine = Engine(seen)
    engine.shutdown = lambda timeout=None: 1 / 0  # type: ignore[assignment,return-value]
    watched(seen, engine)
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(engine.shutdown)

    assert seen == ["told", "10 s to end", LEFT]


async def test_telling_and_waiting_that_fail_do_not_keep_the_engine_running(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    engine = Engine(seen)

    def fail() -> Any:
        raise ValueError("told nobody")

    async def fail_later(seconds: float) -> Any:
        raise ValueError("nobody ended")

    before_shutdown(cast("AsyncLLM", engine), fail, let_end=fail_later, seconds=10)
    noted: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noted.append(context["exception"]))
    try:
        await asyncio.to_thread(engine.shutdown)
        await settle()
    finally:
        asyncio.get_running_loop().set_exception_handler(None)

    assert seen == ["shut down, None", LEFT]
    assert [str(each) for each in noted] == ["told nobody"]
    assert "nobody ended" in caplog.text


async def test_who_never_ends_does_not_keep_the_engine_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_PATIENCE_SECONDS", 5.0)
    seen: list[str] = []
    engine = Engine(seen)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def never(seconds: float) -> None:
        await ended

    before_shutdown(cast("AsyncLLM", engine), lambda: seen.append("told"), let_end=never, seconds=0)
    await asyncio.to_thread(engine.shutdown)
    await settle()

    assert seen == ["told", "shut down, None", LEFT]
    assert ended.cancelled()
