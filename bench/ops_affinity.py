"""What it is worth that an adapter's requests keep to one engine: ring hash with bounded load against round robin.

Two engines of 16 slots and room for 24 adapters in host memory, 200 users whose popularity follows Zipf's law with
exponent 0.9 (what logs of requests to caches show lies between 0.6 and 1), eight callers at a time, each of whom draws
the next user. The same sequence of requests goes through Envoy with deploy/envoy's configuration and with round robin,
after host memory was emptied; the first quarter warms it and is not counted. Counted is what engines say of themselves:
the tier in which each admitted request found its adapter, and how many each engine admitted.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.adapters import Recipe, Shelf
from bench.engines import stop_when_terminated, tell, unpacked_base
from bench.load import Ask
from bench.report import Measure, compare, report, rounds_or
from tests.support.envoy import EnvoyPorts, Policy
from tests.support.fleet import Fleet, client_of, open_fleet, running_envoy
from tests.support.ports import free_port_block

_USERS = 200
_EXPONENT = 0.9
_CALLERS = 8
_PROMPT_TOKENS, _ANSWER_TOKENS = 8, 2
_RECIPE = Recipe(rank=1, modules=("q_proj",), dtype="float16")
_ENGINE = {
    "LORRY_MAX_LORAS": "16",
    "LORRY_MAX_CPU_LORAS": "24",
    "LORRY_MAX_NUM_SEQS": "16",
    "LORRY_MAX_MODEL_LEN": "256",
}
_IN_USE = 409
_GAIN_TARGET, _BALANCE_TARGET = 1.3, 1.25


@dataclass(frozen=True, kw_only=True)
class Passage:
    """What one sequence of requests made of the engines: the share found in memory, and the busiest ÷ the mean."""

    found_in_memory: float
    busiest: float


async def run(*, quick: bool) -> Path:
    """Measure and write the report."""
    requests, rounds = (240, 1) if quick else (1_600, rounds_or(3))
    passages: dict[Policy, list[Passage]] = {"RING_HASH": [], "ROUND_ROBIN": []}
    stop_when_terminated()
    with tempfile.TemporaryDirectory(prefix="lorry-bench-", ignore_cleanup_errors=True) as name:
        base, ports = unpacked_base(), EnvoyPorts.from_base(free_port_block(3))
        async with open_fleet(Path(name) / "home", base_directory=base, engine=_ENGINE) as fleet:
            shelf = Shelf(Path(name) / "shelf", registry=fleet.registry, base_directory=base, base=fleet.base)
            versions = await shelf.add(_USERS, _RECIPE)
            tell(f"{_USERS} adapters are published")
            peer = running_envoy(fleet.members, plan=fleet.plan, ports=ports, policy="ROUND_ROBIN")
            async with peer, client_of(f"http://127.0.0.1:{ports.engines}", fleet.plan.engine_token) as other:
                ways: dict[Policy, httpx.AsyncClient] = {"RING_HASH": fleet.http, "ROUND_ROBIN": other}
                for number in range(rounds):
                    for policy in sorted(ways, reverse=bool(number % 2)):  # who is first changes
                        passage = await _passage(fleet, ways[policy], versions, requests=requests, seed=number)
                        passages[policy].append(passage)
                        tell(f"{policy}: {passage.found_in_memory:.3f} in memory, busiest {passage.busiest:.2f}")
    return report("ops_affinity", _measures(passages), peer="round robin over the same engines", quick=quick)


async def _passage(fleet: Fleet, http: httpx.AsyncClient, versions: list[str], *, requests: int, seed: int) -> Passage:
    await _empty_host_memory(fleet)
    asks = _asks(versions, count=requests, seed=seed)
    await _send(http, asks, count=requests // 4)
    before = [await member.counters("lorry_adapter_requests_total") for member in fleet.members]
    await _send(http, asks, count=requests)
    after = [await member.counters("lorry_adapter_requests_total") for member in fleet.members]
    found, admitted = 0.0, [0.0 for _ in fleet.members]
    for number, (first, last) in enumerate(zip(before, after, strict=True)):
        for labels, value in last.items():
            count = value - first[labels]
            admitted[number] += count
            found += count if dict(labels)["tier"] in {"slot", "host"} else 0
    total = sum(admitted)
    return Passage(found_in_memory=found / total, busiest=max(admitted) / (total / len(admitted)))


def _asks(versions: list[str], *, count: int, seed: int) -> Iterator[tuple[str, Ask]]:
    """Draw users by popularity; each with the text that a gateway would derive from their name."""
    drawn = random.Random(seed)
    order = drawn.sample(range(len(versions)), len(versions))  # who is popular changes from round to round
    weights = [(place + 1) ** -_EXPONENT for place in range(len(versions))]
    for number, user in enumerate(drawn.choices(order, weights, k=count)):
        ask = Ask(
            model=versions[user],
            prompt_tokens=_PROMPT_TOKENS,
            answer_tokens=_ANSWER_TOKENS,
            seed=seed * 1_000_000 + number,
        )
        yield f"user-{user}", ask


async def _send(http: httpx.AsyncClient, asks: Iterator[tuple[str, Ask]], *, count: int) -> None:
    """Send up to `count` requests, some at a time.

    Raises:
        RuntimeError: when one is not answered, for then nothing was measured.
    """
    left = count

    async def one() -> None:
        nonlocal left
        while left > 0 and (drawn := next(asks, None)) is not None:
            left -= 1
            key, ask = drawn
            answer = await http.post("/v1/completions", json=ask.body(stream=False), headers={"x-lorry-adapter": key})
            if answer.status_code != 200:
                raise RuntimeError(f"a request failed, so nothing was measured: {answer.status_code} {answer.text}")

    async with asyncio.TaskGroup() as group:
        for _ in range(_CALLERS):
            group.create_task(one())


async def _empty_host_memory(fleet: Fleet) -> None:
    for member in fleet.members:
        headers = {"authorization": f"Bearer {member.token}"}
        async with httpx.AsyncClient(base_url=member.url, headers=headers, trust_env=False, timeout=60) as http:
            for each in (await http.get("/lorry/adapters")).raise_for_status().json()["adapters"]:
                path = f"/lorry/adapters/{each['version_id']}/evict"
                while (answer := await http.post(path)).status_code == _IN_USE:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.1)
                answer.raise_for_status()


def _measures(passages: dict[Policy, list[Passage]]) -> list[Measure]:
    ring, robin = passages["RING_HASH"], passages["ROUND_ROBIN"]
    return [
        compare(
            f"requests that find their adapter in memory, {_USERS} users",
            unit="share",
            ours=[each.found_in_memory for each in ring],
            peer=[each.found_in_memory for each in robin],
            target=_GAIN_TARGET,
            better="higher",
        ),
        compare(
            "most loaded engine ÷ mean",
            unit="requests",
            ours=[each.busiest for each in ring],
            peer=[1.0],
            target=_BALANCE_TARGET,
        ),
        compare("round robin: most loaded engine ÷ mean", unit="requests", ours=[each.busiest for each in robin]),
    ]
