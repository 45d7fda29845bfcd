"""Two engines behind Envoy: adapters keep to one, hot ones spill, and neither a death nor a restart loses anybody."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.manifest import Owner
from tests.support.envoy import running_requests
from tests.support.fleet import Fleet, Member
from tests.support.pool_rig import meanwhile
from tests.support.waiting import until

RandomAdapter = Callable[..., Path]
USERS = tuple(f"user-{number}" for number in range(8))
BALANCE = 1.5  # hash_balance_factor of deploy/envoy/envoy.yaml
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


async def homes(fleet: Fleet, versions: dict[str, str]) -> dict[str, str]:
    """Return the name of every user's engine."""
    return {user: (await fleet.home_of(version_id, key=user)).name for user, version_id in versions.items()}


def other_than(fleet: Fleet, member: Member) -> Member:
    return next(each for each in fleet.members if each is not member)


async def test_an_adapter_keeps_to_one_engine_and_all_engines_have_some(
    fleet: Fleet, versions: dict[str, str], texts: dict[str, str]
) -> None:
    first = await homes(fleet, versions)
    assert set(first.values()) == {"engine-0", "engine-1"}
    for _ in range(3):
        for user, version_id in versions.items():
            async with fleet.counted() as answered:
                assert await fleet.text(version_id, key=user) == texts[user]
            assert answered == {member.name: float(member.name == first[user]) for member in fleet.members}
    for user, version_id in versions.items():
        assert [member.name for member in fleet.members if await member.holds(version_id)] == [first[user]]


async def test_a_hot_adapter_spills_to_the_other_engine_and_no_further_than_the_bound(
    fleet: Fleet, versions: dict[str, str]
) -> None:
    version_id, at_once, asking = versions[USERS[0]], 12, []
    async with fleet.counted() as answered:
        for number in range(at_once):  # Envoy counts what has reached an engine, not what is on its way there
            asking.append(asyncio.create_task(fleet.ask(version_id, key="hot", max_tokens=128, ignore_eos=True)))
            await until(lambda number=number: are_running(fleet, number + 1), within_seconds=60)  # type: ignore[misc]
        assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}
    print(f"{at_once} requests at once for one adapter: {answered}")
    assert sum(answered.values()) == at_once
    assert min(answered.values()) > 0
    assert max(answered.values()) <= math.ceil(BALANCE * at_once / len(fleet.members)) + 1


async def are_running(fleet: Fleet, count: int) -> bool:
    return await running_requests(fleet.ports) >= count


@dataclass(frozen=True, kw_only=True)
class Death:
    """What was seen when an engine was killed while a request ran on it, and when it was back."""

    before: dict[str, str]  # user → the engine's name
    after: dict[str, str]
    told: int  # the status of the request that ran on it
    tried_elsewhere: float  # requests that the survivor was given because of that one
    meanwhile: list[tuple[str, int, str]]  # user, status and text of those who asked at once
    survivor_holds: dict[str, bool]  # by user


@pytest.fixture(scope="module")
async def death(fleet: Fleet, versions: dict[str, str], texts: dict[str, str]) -> Death:
    """Kill the first user's engine, once for several tests: an engine takes long to start."""
    before = await homes(fleet, versions)
    victim = next(member for member in fleet.members if member.name == before[USERS[0]])
    survivor = other_than(fleet, victim)
    admitted = await survivor.admitted()
    running = asyncio.create_task(fleet.ask(versions[USERS[0]], key=USERS[0], max_tokens=400, ignore_eos=True))
    await until(lambda: holds_a_lease(victim), within_seconds=60)
    await victim.kill()
    try:
        asked = [(user, await fleet.ask(versions[user], key=user)) for user in (*USERS, *USERS)]
        told = (await running).status_code
        given = await survivor.admitted() - admitted
        survivor_holds = {user: await survivor.holds(version_id) for user, version_id in versions.items()}
    finally:
        await victim.start()
    await fleet.until_healthy(2)
    return Death(
        before=before,
        after=await homes(fleet, versions),
        told=told,
        tried_elsewhere=given - sum(answer.status_code == 200 for _, answer in asked),
        meanwhile=[(user, answer.status_code, text_of(answer.json())) for user, answer in asked],
        survivor_holds=survivor_holds,
    )


async def holds_a_lease(member: Member) -> bool:
    return sum((await member.counters("lorry_adapter_leases")).values()) > 0


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["text"]) if "choices" in answer else str(answer)


async def test_a_request_that_ran_on_a_killed_engine_is_told_so_and_not_tried_on_the_next(death: Death) -> None:
    """What kills one engine would otherwise kill them all."""
    assert death.told == 503
    assert death.tried_elsewhere == 0


async def test_a_killed_engines_users_are_answered_by_the_other_one_at_once(
    death: Death, texts: dict[str, str]
) -> None:
    assert death.meanwhile == [(user, 200, texts[user]) for user in (*USERS, *USERS)]
    assert death.survivor_holds == dict.fromkeys(USERS, True)


async def test_an_engine_that_is_back_has_its_users_back(death: Death) -> None:
    assert death.after == death.before


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
            drained = await member.drain(60)
            await member.stop()
            await asyncio.sleep(2)
            await member.start()
            await fleet.until_healthy(2)
            assert drained == 0
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
            seen["answered" if text_of(answer.json()) == text else "another's answer"] += 1
        await asyncio.sleep(0.5)


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
    for member in fleet.members:
        assert (await member.ask(version_id)).status_code == 200

    await fleet.registry.lifecycle.erase_owner(Owner(tenant="default", user=user), why="asked to", force=True)
    for member in fleet.members:
        await until(lambda member=member: is_erased(member, version_id), within_seconds=ERASURE_SECONDS)  # type: ignore[misc]
        assert not await member.holds(version_id)
        cache = Path(member.part.environment["LORRY_ADAPTER_CACHE_DIRECTORY"])
        assert not [path for path in cache.rglob("*") if version_id in path.name and path.suffix != ".lock"]
    for number in range(4):
        assert (await fleet.ask(version_id, key=f"{user}/{number}")).status_code in {404, 409, 410}


async def is_erased(member: Member, version_id: str) -> bool:
    """Say whether the engine has a receipt for a version, which was in its memory."""
    receipts = (await member.get("/lorry/erasures")).json()["erasures"]
    return [
        (each["because"], each["memory"]["removal"]["named"]) for each in receipts if each["version_id"] == version_id
    ] == [("erased", True)]
