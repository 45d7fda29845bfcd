"""Promote, rollback, previous, history, and the gates that guard `live`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kit.database import Database
from registry.client import RegistryClient
from registry.errors import (
    AdapterNotFound,
    AliasConflict,
    AliasNotFound,
    GateClosed,
    InvalidReference,
    NothingToRollBackTo,
    NotServable,
)
from registry.lifecycle.policy import Bounds, Gate, Gates, TenantPolicy
from tests.support.registry_server import OWNER
from tests.support.steering import ADAPTER, aliases, audit, make_live, publish, publish_many, rows


async def candidate(client: RegistryClient, version_id: str) -> None:
    held = await client.get_alias(OWNER, ADAPTER, "candidate")
    await client.move_alias(OWNER, ADAPTER, "candidate", version_id=version_id, expected_version_id=held)


async def test_promoting_lets_live_name_the_candidate_and_previous_the_old_live(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b = await publish_many(client, tmp_path, 2)
    await make_live(client, a)
    await candidate(client, b)
    moved = await client.lifecycle.promote(OWNER, ADAPTER, version_id=b, expected_version_id=a, why="better by a mile")
    assert (moved.alias, moved.version_id, moved.before_version_id) == ("live", b, a)
    assert await aliases(database) == {"candidate": b, "live": b, "previous": a}
    assert await audit(database, b) == [
        *(await audit(database, b))[:-2],
        ("test", "alias candidate", None, b, None),
        ("test", "promote live", a, b, "better by a mile"),
    ]
    history = await client.lifecycle.history(OWNER, ADAPTER)
    assert [(m.alias, m.action, m.version, m.before_version_id) for m in history.moves] == [
        ("previous", "promote", 1, None),
        ("live", "promote", 2, a),
        ("candidate", "move", 2, None),
        ("live", "move", 1, None),
    ]


async def test_promoting_again_changes_and_records_nothing(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b = await publish_many(client, tmp_path, 2)
    await make_live(client, a)
    await candidate(client, b)
    for _ in range(3):
        await client.lifecycle.promote(OWNER, ADAPTER, version_id=b, expected_version_id=a)
    assert await rows(database, "select count(*) from audit where action = 'promote live'") == [(1,)]


async def test_a_promotion_is_refused_when_either_alias_is_not_where_the_caller_saw_it(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b, c = await publish_many(client, tmp_path, 3)
    with pytest.raises(AliasNotFound):
        await client.lifecycle.promote(OWNER, ADAPTER)
    await make_live(client, a)
    await candidate(client, b)
    with pytest.raises(AliasConflict) as caught:
        await client.lifecycle.promote(OWNER, ADAPTER, version_id=c)
    assert (caught.value.field, caught.value.details) == ("version_id", {"current_version_id": b})
    with pytest.raises(AliasConflict) as caught:
        await client.lifecycle.promote(OWNER, ADAPTER, expected_version_id=c)
    assert (caught.value.field, caught.value.details) == ("expected_version_id", {"current_version_id": a})
    with pytest.raises(AdapterNotFound):
        await client.lifecycle.promote(OWNER, "nothing")
    with pytest.raises(InvalidReference):
        await client.lifecycle.promote(OWNER, ADAPTER, target="7")
    assert await aliases(database) == {"live": a, "candidate": b}


async def test_rolling_back_goes_further_back_each_time_and_ends(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b, c = await publish_many(client, tmp_path, 3)
    await make_live(client, a, b, c)
    assert await aliases(database) == {"live": c, "previous": b}
    moved = await client.lifecycle.rollback(OWNER, ADAPTER, why="odd answers")
    assert (moved.version_id, moved.before_version_id) == (b, c)
    assert await aliases(database) == {"live": b, "previous": a}
    await client.lifecycle.rollback(OWNER, ADAPTER)
    assert await aliases(database) == {"live": a}
    with pytest.raises(NothingToRollBackTo):
        await client.lifecycle.rollback(OWNER, ADAPTER)
    assert await aliases(database) == {"live": a}
    await make_live(client, c)
    assert await aliases(database) == {"live": c, "previous": a}
    entries = await rows(database, """select "from", "to", why from audit where action = 'rollback live' order by id""")
    assert entries == [(c, b, "odd answers"), (b, a, None)]


async def test_a_rollback_whose_answer_was_lost_can_be_asked_for_again(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b, c = await publish_many(client, tmp_path, 3)
    await make_live(client, a, b, c)
    answers = [await client.lifecycle.rollback(OWNER, ADAPTER, expected_version_id=c) for _ in range(3)]
    assert {answer.version_id for answer in answers} == {b}
    assert await aliases(database) == {"live": b, "previous": a}
    with pytest.raises(AliasConflict):
        await client.lifecycle.rollback(OWNER, ADAPTER, expected_version_id=a)


async def test_racing_rollbacks_from_one_version_go_back_once(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b, c = await publish_many(client, tmp_path, 3)
    await make_live(client, a, b, c)
    await asyncio.gather(
        *[client.lifecycle.rollback(OWNER, ADAPTER, expected_version_id=c) for _ in range(6)], return_exceptions=True
    )
    assert await aliases(database) == {"live": b, "previous": a}


@pytest.mark.parametrize("way", ["suspend", "retire", "erase"])
async def test_a_rollback_passes_over_what_may_not_be_served(
    client: RegistryClient, database: Database, tmp_path: Path, way: str
) -> None:
    a, b, c = await publish_many(client, tmp_path, 3)
    await make_live(client, a, b, c)
    if way == "suspend":
        await client.lifecycle.suspend_version(b, why="bad")
    elif way == "erase":
        await client.lifecycle.erase_version(b, why="asked for")
    else:
        await rows(database, "delete from alias where name = 'previous'")
        await client.lifecycle.retire_version(b, why="old")
    assert (await client.lifecycle.rollback(OWNER, ADAPTER)).version_id == a
    assert (await aliases(database))["live"] == a


async def test_after_erasing_what_was_live_one_rollback_serves_the_one_before(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b, c = await publish_many(client, tmp_path, 3)
    await make_live(client, a, b, c)
    await client.lifecycle.erase_version(c, why="asked for")
    assert await aliases(database) == {"previous": b}
    moved = await client.lifecycle.rollback(OWNER, ADAPTER)
    assert (moved.version_id, moved.before_version_id) == (b, None)
    assert await aliases(database) == {"live": b, "previous": a}


async def test_another_alias_has_a_history_of_its_own(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b, c = await publish_many(client, tmp_path, 3)
    await make_live(client, c)
    await candidate(client, a)
    await candidate(client, b)
    assert (await client.lifecycle.rollback(OWNER, ADAPTER, alias="candidate")).version_id == a
    assert await aliases(database) == {"live": c, "candidate": a}
    with pytest.raises(AliasNotFound):
        await client.lifecycle.rollback(OWNER, ADAPTER, alias="nothing")


async def test_history_pages_through_every_move_once(client: RegistryClient, tmp_path: Path) -> None:
    versions = await publish_many(client, tmp_path, 2)
    for _ in range(3):
        await make_live(client, *versions)
    seen, cursor = [], None
    while True:
        page = await client.lifecycle.history(OWNER, ADAPTER, alias="live", cursor=cursor, limit=2)
        seen += [move.version for move in page.moves]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [2, 1, 2, 1, 2, 1]
    with pytest.raises(InvalidReference):
        await client.lifecycle.history(OWNER, ADAPTER, cursor="made up")
    with pytest.raises(AdapterNotFound):
        await client.lifecycle.history(OWNER, "nothing")


async def test_of_racing_moves_exactly_one_wins_and_history_agrees(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    versions = await publish_many(client, tmp_path, 5)
    await make_live(client, versions[0])

    async def move(version_id: str) -> None:
        await client.move_alias(OWNER, ADAPTER, "live", version_id=version_id, expected_version_id=versions[0])

    outcomes = await asyncio.gather(*[move(version) for version in versions[1:]], return_exceptions=True)
    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, AliasConflict) for outcome in outcomes) == 3
    winner = versions[1:][outcomes.index(None)]
    assert await aliases(database) == {"live": winner, "previous": versions[0]}
    moves = await rows(database, "select before_version_id, version_id from alias_move where name = 'live' order by id")
    assert moves == [(None, versions[0]), (versions[0], winner)]


PASSED: dict[str, Any] = {"gate": {"passed": True}, "held_out": {"gain": 0.5}}
FAILED: dict[str, Any] = {"gate": {"passed": False}, "held_out": {"gain": -0.5}}


@pytest.mark.parametrize(
    ("trained", "evaluation", "reason"),
    [
        (True, PASSED, None),
        (True, FAILED, "did not|does not say"),
        (True, {}, "no evaluation report"),
        (False, {}, None),
        (False, FAILED, None),
    ],
)
async def test_by_default_live_takes_what_was_trained_only_when_it_passed_and_anything_valid_that_was_pushed(
    client: RegistryClient,
    database: Database,
    tmp_path: Path,
    trained: bool,
    evaluation: dict[str, Any],
    reason: str | None,
) -> None:
    version_id = await publish(client, tmp_path, trained=trained, evaluation=evaluation)
    await candidate(client, version_id)  # not guarded: nobody gets it who does not ask for it
    if reason is None:
        await client.lifecycle.promote(OWNER, ADAPTER)
        return
    with pytest.raises(GateClosed, match=reason) as caught:
        await client.lifecycle.promote(OWNER, ADAPTER)
    assert caught.value.details["reasons"]
    with pytest.raises(GateClosed):
        await make_live(client, version_id)
    assert await aliases(database) == {"candidate": version_id}


async def test_a_report_attached_later_opens_and_closes_the_gate(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b = await publish_many(client, tmp_path, 2, trained=True, evaluation=FAILED)
    await client.lifecycle.attach_evaluation(a, PASSED)
    await make_live(client, a)
    await client.lifecycle.attach_evaluation(b, PASSED)
    await client.lifecycle.attach_evaluation(b, FAILED)
    with pytest.raises(GateClosed):
        await make_live(client, b)
    assert (await aliases(database))["live"] == a


async def test_a_tenants_own_gate_decides_by_measured_values(client: RegistryClient, tmp_path: Path) -> None:
    strict = Gate(metrics={"held_out.gain": Bounds(at_least=0.6)})
    policy = TenantPolicy(gate=Gates(aliases=("live", "beta"), trained=strict, pushed=strict))
    assert await client.lifecycle.put_policy("default", policy, why="quality") == policy
    assert await client.lifecycle.get_policy("default") == policy
    version_id = await publish(client, tmp_path, evaluation=PASSED)
    for alias in ("live", "beta"):
        with pytest.raises(GateClosed, match=r"held_out.gain is 0.5, at least 0.6 asked"):
            await client.move_alias(OWNER, ADAPTER, alias, version_id=version_id, expected_version_id=None)
    await client.lifecycle.attach_evaluation(version_id, {"held_out": {"gain": 0.7}})
    await make_live(client, version_id)
    assert (await client.lifecycle.get_policy("other")) == TenantPolicy()


async def test_a_rollback_needs_no_gate(client: RegistryClient, database: Database, tmp_path: Path) -> None:
    a, b = await publish_many(client, tmp_path, 2)
    await make_live(client, a, b)
    await client.lifecycle.put_policy("default", TenantPolicy(gate=Gates(pushed=Gate(require_passed=True))))
    assert (await client.lifecycle.rollback(OWNER, ADAPTER)).version_id == a
    with pytest.raises(GateClosed):
        await make_live(client, b)


async def test_nothing_slips_past_the_gate_by_way_of_previous(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b, failed = await publish_many(client, tmp_path, 3)
    await make_live(client, a, b)
    await client.move_alias(OWNER, ADAPTER, "previous", version_id=failed, expected_version_id=a)
    await client.lifecycle.put_policy("default", TenantPolicy(gate=Gates(pushed=Gate(require_passed=True))))
    with pytest.raises(GateClosed):
        await client.lifecycle.rollback(OWNER, ADAPTER)
    assert await aliases(database) == {"live": b, "previous": failed}


async def test_no_alias_moves_to_what_is_suspended_however_it_is(client: RegistryClient, tmp_path: Path) -> None:
    a, b = await publish_many(client, tmp_path, 2)
    await client.lifecycle.suspend_version(a, why="bad")
    with pytest.raises(NotServable, match="suspended"):
        await make_live(client, a)
    await client.lifecycle.suspend(OWNER, ADAPTER, why="bad")
    with pytest.raises(NotServable, match="adapter suspended"):
        await make_live(client, b)
    await client.lifecycle.resume(OWNER, ADAPTER, why="good")
    await client.lifecycle.suspend(OWNER, why="bad")
    with pytest.raises(NotServable, match="user suspended"):
        await make_live(client, b)
