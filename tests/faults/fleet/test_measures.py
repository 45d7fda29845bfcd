"""Real Prometheus on all parts, real ones, with two engines behind Envoy: every query finds its data."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import yaml

from deploy.dashboards.__main__ import PAGES
from deploy.dashboards.panels import Query
from kit.database import Database
from lorry.local.part import Part, start_part
from registry.manifest import DEFAULT_ADAPTER, LIVE, Owner
from serving.gateway.keys import create_api_key
from tests.support.fleet import Fleet
from tests.support.pool_rig import until
from tests.support.ports import free_port_block
from tests.support.prometheus import Prometheus, running_prometheus

RULES = Path(__file__).resolve().parents[3] / "deploy" / "prometheus"
NOTHING_FAILED = re.compile(r'status=~"5\.\."')
SELECTOR = re.compile(r"((?:lorry|envoy)_\w+|lorry:\w+:\w+)(\{[^}]*\})?")


@pytest.fixture(scope="module")
async def measured(
    fleet: Fleet, random_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Prometheus]:
    """Prometheus, once everything was used a little and looked at a few times."""
    folder, ports = tmp_path_factory.mktemp("measures"), free_port_block(2)
    await fleet.stack.ensure("extraction")
    addresses = {name: address for name, address, _ in fleet.stack.addresses()}
    trainings = await start_part(training_service(fleet, folder, port=ports))
    await trainings.wait_until_healthy()
    targets = {
        "engines": ([member.url.removeprefix("http://") for member in fleet.members], "/metrics"),
        "envoy": ([f"127.0.0.1:{fleet.ports.stats}"], "/stats/prometheus"),
        "registry": ([fleet.plan.registry_url.removeprefix("http://")], "/metrics"),
        "gateway": ([fleet.plan.gateway_url.removeprefix("http://")], "/metrics"),
        "extraction": ([addresses["extraction"].removeprefix("http://")], "/metrics"),
        "trainings": ([f"127.0.0.1:{ports}"], "/metrics"),
    }
    try:
        async with running_prometheus(folder, port=ports + 1, rules=RULES, targets=targets) as prometheus:
            await use_everything(fleet, random_adapter)
            await asyncio.sleep(4)
            await use_everything(fleet, random_adapter)
            await asyncio.sleep(6)
            yield prometheus
    finally:
        await trainings.stop()


def training_service(fleet: Fleet, folder: Path, *, port: int) -> Part:
    address = f"http://127.0.0.1:{port}"

    async def answers() -> bool:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            try:
                return (await client.get(f"{address}/healthz")).status_code == 200
            except httpx.HTTPError:
                return False

    return Part(
        name="trainings",
        argv=(sys.executable, "-m", "training.service"),
        environment={
            "LORRY_DATABASE_URL": fleet.plan.database.database_url,
            "LORRY_TRAINING_TOKEN": "a-token-for-tests-only",
            "LORRY_TRAINING_PORT": str(port),
        },
        log_path=folder / "trainings.log",
        address=address,
        ports=(port,),
        is_healthy=answers,
    )


async def use_everything(fleet: Fleet, random_adapter: Callable[..., Path]) -> None:
    """A user's question through the gateway, one at each class, and an adapter found in each tier."""
    manifest = await fleet.publish(random_adapter(990, rank=8), user="measured")
    owner = Owner(tenant="default", user="measured")
    held = await fleet.registry.get_alias(owner, DEFAULT_ADAPTER, LIVE)
    await fleet.registry.move_alias(
        owner, DEFAULT_ADAPTER, LIVE, version_id=manifest.version_id, expected_version_id=held
    )
    database = Database(fleet.plan.database)
    try:
        async with database.transaction() as session:
            key = await create_api_key(session, "default")
    finally:
        await database.close()
    body = {"model": "users/measured", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    async with httpx.AsyncClient(base_url=fleet.plan.gateway_url, trust_env=False, timeout=120) as http:
        answer = await http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
    for member in fleet.members:
        async with httpx.AsyncClient(trust_env=False, timeout=120) as http:
            batch = {"model": manifest.version_id, "prompt": "Hello", "max_tokens": 2}
            headers = {"authorization": f"Bearer {member.token}", "x-lorry-class": "batch"}
            assert (await http.post(f"{member.url}/v1/completions", json=batch, headers=headers)).status_code == 200


async def test_every_target_is_found(measured: Prometheus) -> None:
    targets = await measured.targets()
    assert set(targets.values()) == {"up"}, targets
    assert {name.split("/")[0] for name in targets} == {
        *("engines", "envoy", "registry", "gateway", "extraction", "trainings")
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
async def test_every_panel_has_data_or_says_why_it_may_have_none(measured: Prometheus, page: object) -> None:
    empty = []
    for query in page.queries():  # type: ignore[attr-defined]
        assert isinstance(query, Query)
        if not await measured.ask(query.expr) and not query.may_be_empty:
            empty.append(query.expr)
    assert not empty


def exprs() -> list[tuple[str, str]]:
    found = []
    for path in sorted(RULES.glob("*.rules.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            found += [(rule.get("alert") or rule["record"], rule["expr"]) for rule in group["rules"]]
    return found


@pytest.mark.parametrize(("name", "expr"), exprs(), ids=[name for name, _ in exprs()])
async def test_every_rule_looks_at_series_that_are_there(measured: Prometheus, name: str, expr: str) -> None:
    """An alert that is silent because nothing is wrong, and one that looks at nothing, look alike."""
    await measured.ask(expr)
    for metric, matchers in SELECTOR.findall(expr):
        if not NOTHING_FAILED.search(matchers):
            assert await measured.ask(f"{metric}{matchers}"), f"{metric}{matchers}"


async def test_nothing_fires_while_nothing_is_wrong(measured: Prometheus) -> None:
    firing = await measured.ask('ALERTS{alertname=~"Lorry.*",alertstate="firing"}')
    assert [each["metric"]["alertname"] for each in firing] == []


async def test_an_engine_that_dies_is_seen(fleet: Fleet, measured: Prometheus) -> None:
    victim = fleet.members[1]
    await victim.kill()
    try:
        expr = 'envoy_cluster_membership_healthy{envoy_cluster_name="engines"} == 1'
        await until(lambda: seen(measured, expr), within_seconds=20)
        await until(lambda: seen(measured, 'up{job="engines"} == 0'), within_seconds=20)
    finally:
        await victim.start()
    await fleet.until_healthy(2)


async def seen(prometheus: Prometheus, expr: str) -> bool:
    return bool(await prometheus.ask(expr))
