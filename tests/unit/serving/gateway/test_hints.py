"""Hints against an engine that remembers what it was told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from serving.errors import EngineUnavailable, NoAdapter
from serving.extraction.engines import Engines
from serving.gateway.hints import Hints
from tests.support.waiting import settle


class Engine:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: Exception | None = None

    async def prefetch(self, manifest: Any, *, kind: str) -> None:
        self.told.append((manifest.version_id, kind))
        await self.may_answer.wait()
        if self.error:
            raise self.error


class Adapters:
    async def require_live(self, tenant: str, user: str) -> Any:
        if user == "nobody":
            raise NoAdapter
        return version(user)


def version(name: str) -> Any:
    return SimpleNamespace(version_id=name, base=SimpleNamespace(id="base"))


async def all_ended(hints: Hints) -> None:
    while hints._errands:  # noqa: ASYNC110 - nobody tells when the last one ends
        await asyncio.sleep(0)


def hints_to(engine: Engine, **changes: Any) -> Hints:
    return Hints(Engines(engine), Adapters(), **changes)  # type: ignore[arg-type]


async def test_a_version_is_hinted_at_once_in_a_while() -> None:
    engine = Engine()
    async with hints_to(engine) as hints:
        for _ in range(5):
            hints.expect(version("a"), kind="live")
            hints.expect_live("t", "a")
        hints.expect(version("b"), kind="batch")
        await all_ended(hints)
    assert engine.told == [("a", "live"), ("b", "batch")]


async def test_no_more_are_under_way_than_may_be() -> None:
    engine = Engine()
    engine.may_answer.clear()
    async with hints_to(engine, at_once=3) as hints:
        for number in range(100):
            hints.expect(version(f"v{number}"), kind="live")
        await settle()
        assert len(engine.told) == 3
        engine.may_answer.set()
        await all_ended(hints)
        hints.expect(version("later"), kind="live")
        await all_ended(hints)
    assert len(engine.told) == 4


async def test_a_hint_that_fails_disturbs_nobody() -> None:
    engine = Engine()
    engine.error = EngineUnavailable()
    async with hints_to(engine) as hints:
        hints.expect(version("a"), kind="live")
        hints.expect_live("t", "nobody")
        await all_ended(hints)
    assert engine.told == [("a", "live")]


async def test_leaving_ends_what_is_under_way() -> None:
    engine = Engine()
    engine.may_answer.clear()
    async with hints_to(engine) as hints:
        hints.expect(version("a"), kind="live")
        await asyncio.sleep(0)
    assert not hints._errands
