"""The sign that stops requests about who is being erased."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from kit.database import Database
from kit.errors import BeingErased
from serving.erasure.desk import ErasureDesk
from serving.gateway.erasing import Sign

DAY = 86_400.0


@pytest.mark.parametrize("at_most", [0, 1, 2, 1000], ids=["no-list", "too-many", "all-of-them", "few"])
async def test_who_is_being_erased_is_refused_and_nobody_else(database: Database, at_most: int) -> None:
    desk = ErasureDesk(database)
    for tenant, user in (("default", "ann"), ("other", "bob")):
        await desk.ask(tenant, user, asked_by="test", known=True)
    sign = Sign(desk, cache_seconds=DAY, at_most=at_most)
    for tenant, user in (("default", "ann"), ("other", "bob")):
        with pytest.raises(BeingErased):
            await sign.require_not_erasing(tenant, user)
    for tenant, user in (("default", "bob"), ("other", "ann"), ("default", "cid"), ("default", "no name")):
        await sign.require_not_erasing(tenant, user)


async def test_one_question_answers_for_every_user(database: Database) -> None:
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        asked.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    sign = Sign(ErasureDesk(database), cache_seconds=DAY)
    for number in range(20):
        await sign.require_not_erasing("default", f"user{number}")
    assert len([statement for statement in asked if "FROM erasure" in statement]) == 1


async def test_an_erasure_that_begins_is_seen_when_what_is_remembered_is_old(database: Database) -> None:
    desk = ErasureDesk(database)
    sign = Sign(desk, cache_seconds=0)
    await sign.require_not_erasing("default", "ann")
    await desk.ask("default", "ann", asked_by="test", known=True)
    with pytest.raises(BeingErased):
        await sign.require_not_erasing("default", "ann")


@pytest.mark.parametrize("at_most", [0, 1, 1000], ids=["no-list", "too-many", "few"])
async def test_an_erasure_that_was_asked_of_this_process_is_seen_at_once(database: Database, at_most: int) -> None:
    desk = ErasureDesk(database)
    sign = Sign(desk, cache_seconds=DAY, at_most=at_most)
    for user in ("ann", "bob"):
        await sign.require_not_erasing("default", user)
    await desk.ask("default", "ann", asked_by="test", known=True)
    await sign.require_not_erasing("default", "ann")  # what another process was asked is heard of in time
    sign.note_asked("default", "ann")
    with pytest.raises(BeingErased):
        await sign.require_not_erasing("default", "ann")
    await sign.require_not_erasing("default", "bob")


async def test_who_waits_for_the_database_anyway_does_not_go_by_memory(database: Database) -> None:
    desk = ErasureDesk(database)
    sign = Sign(desk, cache_seconds=DAY)
    await sign.require_not_erasing("default", "ann")
    await desk.ask("default", "ann", asked_by="test", known=True)
    with pytest.raises(BeingErased):
        await sign.require_not_erasing("default", "ann", reads_database=True)
    await sign.require_not_erasing("default", "bob", reads_database=True)
    await sign.require_not_erasing("default", "no name", reads_database=True)
