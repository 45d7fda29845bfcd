"""Two engines behind Envoy: adapters keep to one, hot ones spill, and neither a death nor a restart loses anybody."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from registry.manifest import Owner
from tests.support.fleet import Fleet, Member
from tests.support.pool_rig import meanwhile, until

RandomAdapter = Callable[..., Path]
USERS = tuple(f"user-{number}" for number in range(8))
BALANCE = 1.25  # hash_balance_factor of deploy/envoy/envoy.yaml
ERASURE_SECONDS = 10.0


@pytest.fixture(scope="module")
async def versions(fleet: Fleet, random_adapter: RandomAdapter) -> dict[str, str]:
    """A version of every user."""
    found = {}
    for seed, user in enumerate(USERS):
        found[user] = (await fleet.publish(random_adapter(900 + seed, rank=8), user=user)).version_id
    return found


@pytest.fixture(scope="module")
async def texts(fleet: Fleet, versions: dict[str, str]) -> dict[str, str]:
    """What every user's adapter answers, whichever engine is asked."""
    return {user: await fleet.text(version_id, key=user) for user, version_id in versions.items()}


async def homes(fleet: Fleet, versions: dict[str, str]) -> dict[str, Member]:
    return {user: await fleet.home_of(version_id, key=user) for user, version_id in versions.items()}


def other_than(fleet: Fleet, member: Member) -> Member:
    return next(each for each in fleet.members if each is not member)


async def test_an_adapter_keeps_to_one_engine_and_all_engines_have_some(
    fleet: Fleet, versions: dict[str, str], texts: dict[str, str]
) -> None:
    first = await homes(fleet, versions)
    assert {member.name for member in first.values()} == {"engine-0", "engine-1"}
    for _ in range(3):
        for user, version_id in versions.items():
            async with fleet.counted() as answered:
                assert await fleet.text(version_id, key=user) == texts[user]
            assert answered == {member.name: float(member is first[user]) for member in fleet.members}
    for user, version_id in versions.items():
        assert not await other_than(fleet, first[user]).holds(version_id)


async def test_a_hot_adapter_spills_to_the_other_engine_and_no_further_than_the_bound(
    fleet: Fleet, versions: dict[str, str]
) -> None:
    user, version_id = next(iter(versions.items()))
    at_once = 12
    async with fleet.counted() as answered:
        asking = []
        for _ in range(at_once):  # Envoy counts what has reached an engine, not what is on its way there
            asking.append(asyncio.create_task(fleet.ask(version_id, key=user, max_tokens=64, ignore_eos=True)))
            await asyncio.sleep(0.1)
        assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}
    print(f"{at_once} requests at once for one adapter: {answered}")
    assert sum(answered.values()) == at_once
    assert min(answered.values()) > 0
    assert max(answered.values()) <= math.ceil(BALANCE * at_once / len(fleet.members)) + 1


async def test_a_killed_engines_users_move_and_come_back(
    fleet: Fleet, versions: dict[str, str], texts: dict[str, str]
) -> None:
    before = await homes(fleet, versions)
    victim = before[USERS[0]]
    survivor = other_than(fleet, victim)
    await victim.kill()
    try:
        answers = [await fleet.ask(version_id, key=user) for user, version_id in versions.items() for _ in range(2)]
        assert Counter(answer.status_code for answer in answers) == {200: 2 * len(versions)}
        for user, version_id in versions.items():
            assert await fleet.text(version_id, key=user) == texts[user]
            assert await survivor.holds(version_id)
    finally:
        await victim.start()
    await fleet.until_healthy(2)
    assert await homes(fleet, versions) == before


async def test_a_request_that_ran_on_a_killed_engine_is_told_so_and_not_tried_on_the_next(
    fleet: Fleet, versions: dict[str, str]
) -> None:
    """What kills one engine would otherwise kill them all."""
    user, version_id = USERS[0], versions[USERS[0]]
    victim = await fleet.home_of(version_id, key=user)
    survivor = other_than(fleet, victim)
    before = await survivor.admitted()
    running = asyncio.create_task(fleet.ask(version_id, key=user, max_tokens=400, ignore_eos=True))
    await until(lambda: holds_a_lease(victim), within_seconds=30)
    await victim.kill()
    try:
        assert (await running).status_code == 503
        assert await survivor.admitted() == before
    finally:
        await victim.start()
    await fleet.until_healthy(2)


async def holds_a_lease(member: Member) -> bool:
    return sum((await member.counters("lorry_adapter_leases")).values()) > 0


async def test_a_rolling_restart_loses_no_request(
    fleet: Fleet, versions: dict[str, str], texts: dict[str, str]
) -> None:
    ended = asyncio.Event()
    seen: Counter[str] = Counter()
    crowd: list[Coroutine[Any, Any, None]] = [
        ask_on(fleet, user, versions[user], texts[user], ended=ended, seen=seen) for user in USERS
    ]
    crowd.append(stream_on(fleet, USERS[1], versions[USERS[1]], ended=ended, seen=seen))
    async with AsyncExitStack() as exits:
        asking = await exits.enter_async_context(meanwhile(*crowd))
        for member in fleet.members:
            await asyncio.sleep(3)
            assert await member.drain(60) == 0
            await member.stop()
            await asyncio.sleep(2)
            await member.start()
            await fleet.until_healthy(2)
        ended.set()
        await asyncio.gather(*asking)
    print(f"during two restarts: {dict(seen)}")
    assert set(seen) == {"answered", "streamed"}
    assert seen["answered"] > 2 * len(USERS)


async def ask_on(
    fleet: Fleet, user: str, version_id: str, text: str, *, ended: asyncio.Event, seen: Counter[str]
) -> None:
    """Ask until told to end; what is not the user's own answer is counted under its name."""
    while not ended.is_set():
        answer = await fleet.ask(version_id, key=user)
        if answer.status_code != 200:
            seen[f"{answer.status_code} {answer.text[:200]}"] += 1
        else:
            seen["answered" if answer.json()["choices"][0]["text"] == text else "another's answer"] += 1
        await asyncio.sleep(0.1)


async def stream_on(fleet: Fleet, user: str, version_id: str, *, ended: asyncio.Event, seen: Counter[str]) -> None:
    """Stream long answers until told to end."""
    body = {"model": version_id, "prompt": "Once", "max_tokens": 40, "ignore_eos": True, "stream": True}
    while not ended.is_set():
        headers = {"x-lorry-adapter": user}
        async with fleet.http.stream("POST", "/v1/completions", json=body, headers=headers) as answer:
            lines = [line async for line in answer.aiter_lines()]
        whole = answer.status_code == 200 and "data: [DONE]" in lines
        seen["streamed" if whole else f"{answer.status_code} stream broke off"] += 1


async def test_an_erasure_reaches_every_engine(fleet: Fleet, versions: dict[str, str]) -> None:
    user, version_id = USERS[2], versions[USERS[2]]
    for number in range(20):  # any key is some engine's, so that in the end both hold it
        if all([await member.holds(version_id) for member in fleet.members]):
            break
        await fleet.text(version_id, key=f"{user}/{number}")
    assert all([await member.holds(version_id) for member in fleet.members])

    await fleet.registry.lifecycle.erase_owner(Owner(tenant="default", user=user), why="asked to")
    for member in fleet.members:
        await until(lambda member=member: not_held(member, version_id), within_seconds=ERASURE_SECONDS)  # type: ignore[misc]
        receipts = (await member.get("/lorry/erasures")).json()["erasures"]
        (receipt,) = [each for each in receipts if each["version_id"] == version_id]
        assert (receipt["because"], receipt["memory"]["removal"]["named"]) == ("erased", True)
        cache = Path(member.part.environment["LORRY_ADAPTER_CACHE_DIRECTORY"])
        assert not [path for path in cache.rglob("*") if version_id in path.name and path.suffix != ".lock"]
    for number in range(4):
        assert (await fleet.ask(version_id, key=f"{user}/{number}")).status_code in {404, 409, 410}


async def not_held(member: Member, version_id: str) -> bool:
    return not await member.holds(version_id)
