"""Crowds, clients that go away, and changes in the middle of it all."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.manifest import AdapterRef, Owner
from tests.support.pool_rig import Rig, meanwhile, streamed_text
from tests.support.waiting import until

# A refusal is remembered for as long as it takes many to ask.
RIG = {"engine": {"LORRY_LIVE_DEADLINE_SECONDS": "300", "LORRY_REFUSAL_TTL_SECONDS": "20"}}
RandomAdapter = Callable[..., Path]
WHY = "a test of the pool"
COLD, ASKS = 100, 10
MOST_SECONDS = 10.0


@pytest.fixture(scope="module", autouse=True)
async def _others(rig: Rig, random_adapter: RandomAdapter) -> None:
    """Two users whom nothing here may disturb."""
    versions = [(await rig.publish(random_adapter(seed, rank=8), user=f"other-{seed}")).version_id for seed in (1, 2)]
    await rig.meet(*versions)


async def test_a_thousand_requests_for_a_hundred_cold_adapters_cost_a_hundred_downloads(
    rig: Rig, random_adapter: RandomAdapter
) -> None:
    publishing = asyncio.Semaphore(4)

    async def publish(seed: int) -> str:
        directory = await asyncio.to_thread(random_adapter, seed, rank=1)
        async with publishing:
            return (await rig.publish(directory, user=f"crowd-{seed}")).version_id

    versions = await asyncio.gather(*(publish(1000 + number) for number in range(COLD)))
    began = time.monotonic()
    async with rig.counted() as happened:
        asked = [rig.ask(versions[number % COLD], max_tokens=1) for number in range(COLD * ASKS)]
        async with rig.others() as others:
            answers = await asyncio.gather(*asked)
    print(f"{COLD * ASKS} requests for {COLD} cold adapters: {time.monotonic() - began:.1f} s")

    assert Counter(answer.status_code for answer in answers) == {200: COLD * ASKS}
    assert {rig.downloads(version_id) for version_id in versions} == {1}
    assert happened.failures == happened.refusals == happened.ended == {}
    # Those of the others may have had to leave, and come back for each of their requests.
    assert COLD <= happened.loads["loaded"] <= COLD + others.requests
    assert happened.admitted == COLD * ASKS + others.requests
    assert happened.by("class", "lorry_slot_wait_seconds_count") == {"live": happened.admitted}
    assert happened.evictions("host") == {"room": happened.loads["loaded"] - 8 + 2}
    assert len(await rig.residents()) == await rig.gauge("lorry_adapters", tier="host") == 8
    assert await rig.gauge("lorry_queue_depth", **{"class": "live"}) == 0


async def test_clients_that_go_away_in_mid_stream_leave_their_slots_at_once(
    rig: Rig, random_adapter: RandomAdapter
) -> None:
    versions = [(await rig.publish(random_adapter(seed), user=f"gone-{seed}")).version_id for seed in (30, 31)]
    endless = {"prompt": "Once", "max_tokens": 480, "ignore_eos": True, "stream": True}

    async def read_a_little(version_id: str) -> None:
        async with rig.http.stream("POST", "/v1/completions", json={"model": version_id, **endless}) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    return  # and never come back

    async with rig.others(), rig.counted() as happened:
        async with asyncio.timeout(300):
            await asyncio.gather(*(read_a_little(version_id) for version_id in versions for _ in range(4)))
        began = time.monotonic()
        for version_id in versions:
            await rig.until_unused(version_id, within_seconds=MOST_SECONDS)
        print(f"clients gone → no lease: {time.monotonic() - began:.2f} s")
    assert happened.failures == happened.refusals == {}

    async def nothing_runs() -> bool:
        return running(await engine_metrics(rig)) == 0

    await until(nothing_runs)


async def test_clients_that_go_away_while_they_wait_leave_the_queue(rig: Rig, random_adapter: RandomAdapter) -> None:
    manifest = await rig.publish(random_adapter(32), user="impatient")
    rig.s3.stall(f"^GET .*{manifest.version_id}", seconds=1.0)  # less than the engine lets it be silent
    async with rig.others(), rig.counted() as happened:
        for _ in range(20):
            with pytest.raises(httpx.TimeoutException):
                await rig.http.post(
                    "/v1/completions", json={"model": manifest.version_id, "prompt": "Once"}, timeout=0.05
                )
        assert (await rig.ask(manifest.version_id)).status_code == 200
    rig.s3.heal()

    assert rig.downloads(manifest.version_id) == 1
    assert (happened.loads, happened.failures) == ({"loaded": 1}, {})
    await rig.until_unused(manifest.version_id)


async def test_what_is_erased_under_load_ends_and_nobody_elses_does(rig: Rig, random_adapter: RandomAdapter) -> None:
    manifest = await rig.publish(random_adapter(33), user="erased")
    version_id, erased = manifest.version_id, asyncio.Event()
    seen: list[tuple[float, httpx.Response]] = []

    async def ask_on(*, tokens: int) -> None:
        while not erased.is_set():
            seen.append((time.monotonic(), await rig.ask(version_id, max_tokens=tokens, ignore_eos=True)))

    async def is_gone() -> bool:
        return not rig.on_disk(version_id) and version_id not in await rig.residents()

    async with rig.others(), rig.counted() as happened:
        assert (await rig.ask(version_id)).status_code == 200
        lengths = (32, 32, 32, 400)  # short ones end together; of the long one something runs when the orders come
        async with meanwhile(*(ask_on(tokens=tokens) for tokens in lengths)) as asking:
            await until(lambda: len(seen) >= 3, within_seconds=60)
            await asyncio.sleep(0.3)
            began = time.monotonic()
            await rig.registry_client.lifecycle.erase_version(version_id, why=WHY, force=True)
            await until(is_gone, within_seconds=MOST_SECONDS)
            print(f"erased → off memory and disk: {time.monotonic() - began:.2f} s")
            gone_at = time.monotonic()
            await asyncio.sleep(0.5)
            erased.set()
            await asyncio.gather(*asking)

    codes = Counter(answer.status_code for _, answer in seen)
    assert codes[200] > 0
    assert set(codes) <= {200, 404, 409}, codes
    assert {answer.status_code for at, answer in seen if at > gone_at} <= {404, 409}
    assert happened.loads["loaded"] == 1
    assert set(happened.failures) <= {"not_servable"}  # who asks later than the registry's orders asks the registry
    assert sum(happened.refusals.values()) + sum(happened.ended.values()) == codes.total() - codes[200]
    assert set(happened.ended) == {"erased"}
    assert set(happened.refusals) <= {"erased", "not_servable"}
    assert happened.evictions("disk") == {"erased": 1}
    (receipt,) = [each for each in await receipts(rig) if each["version_id"] == version_id]
    assert receipt["because"] == "erased"
    assert receipt["memory"]["removal"]["slots_zeroed"] <= 1  # none when another user's adapter took its slot meanwhile
    assert receipt["memory"]["removal"]["host_bytes"] > 0
    assert receipt["disk_bytes"] > 0


async def test_when_live_moves_running_requests_finish_on_the_old_version_and_new_ones_use_the_new(
    rig: Rig, random_adapter: RandomAdapter
) -> None:
    owner = Owner(tenant="default", user="mover")
    old, new = [(await rig.publish(random_adapter(seed), user="mover")).version_id for seed in (34, 35)]
    texts = {version_id: await rig.text(version_id) for version_id in (old, new)}
    assert texts[old] != texts[new]
    long = {"prompt": "Once", "max_tokens": 400, "ignore_eos": True, "temperature": 0}
    whole = await rig.text(old, **long)
    await move(rig, owner, to=old, held=None)
    moved, answers = asyncio.Event(), list[tuple[str, str]]()

    async def ask_live() -> None:
        while not moved.is_set():
            version_id = (await rig.registry_client.resolve(AdapterRef(owner=owner))).manifest.version_id
            answers.append((version_id, await rig.text(version_id)))

    async with (
        rig.others(),
        rig.counted() as happened,
        meanwhile(stream(rig, old, **long)) as (running,),
        meanwhile(*(ask_live() for _ in range(3))) as asking,
    ):
        await until(lambda: bool(answers), within_seconds=60)
        assert not running.done()
        await move(rig, owner, to=new, held=old)
        await until(lambda: answers[-1][0] == new, within_seconds=60)
        moved.set()
        await asyncio.gather(*asking)
        assert await running == whole

    assert {version_id for version_id, _ in answers} == {old, new}
    assert all(text == texts[version_id] for version_id, text in answers)
    assert happened.failures == happened.refusals == {}
    await rig.until_unused(old)


async def move(rig: Rig, owner: Owner, *, to: str, held: str | None) -> None:
    await rig.registry_client.move_alias(owner, "profile", "live", version_id=to, expected_version_id=held)


async def stream(rig: Rig, version_id: str, **body: object) -> str:
    body = {"model": version_id, "stream": True, **body}
    async with rig.http.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.status_code == 200
        return streamed_text([line async for line in answer.aiter_lines()])


async def test_without_a_registry_those_in_memory_are_served_under_load_and_others_refused_once(
    rig: Rig, random_adapter: RandomAdapter
) -> None:
    cold = (await rig.publish(random_adapter(36), user="cold")).version_id
    async with rig.registry.killed(), rig.others(answers=5), rig.counted() as happened:
        answers = await asyncio.gather(*(rig.ask(cold) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {503}, answers[0].text
        assert "registry" in answers[0].json()["error"]["message"]
    assert (happened.failures, happened.loads) == ({"registry_unavailable": 1}, {"failed": 1})
    assert happened.refusals == {"registry_unavailable": 20}

    async def is_answered() -> bool:
        return (await rig.ask(cold)).status_code == 200

    await until(is_answered, within_seconds=120)


async def receipts(rig: Rig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await rig.http.get("/lorry/erasures")).json()["erasures"]
    return found


async def engine_metrics(rig: Rig) -> str:
    return (await rig.http.get("/metrics")).text


def running(metrics: str) -> float:
    """How many requests vLLM itself says it runs."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if "num_requests_running{" in line)
