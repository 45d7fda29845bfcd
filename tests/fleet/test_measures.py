"""Real Prometheus on all parts, real ones, with two engines behind Envoy: every query finds its data."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
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
from tests.support.ports import free_port_block
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.waiting import until

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
ONLY_ONCE_SOMETHING_FAILED = re.compile(r'status=~"5\.\."|^lorry_training_recent_failures')
GROUPING = re.compile(r"\b(by|without|on|ignoring)\s*\([^)]*\)")
SELECTOR = re.compile(r"((?:lorry|envoy)_\w+|lorry:\w+(?::\w+)?)(\{[^}]*\})?")
# What a deployment says of itself, as gateway.rules.yml asks; the chart does.
WANTED = {"record": "lorry:engines_wanted", "expr": "vector(2)", "labels": {"envoy_cluster_name": "engines"}}
# What is reckoned last: each half minute, from two looks at a gateway and engines that were used.
LATEST = "lorry:gateway_errors:ratio_rate3d and on() lorry:live_waits_slow:ratio_rate3d"


@pytest.fixture(scope="module")
async def measured(
    fleet: Fleet, random_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Prometheus]:
    """Prometheus, once everything was used a little and looked at a few times."""
    folder = tmp_path_factory.mktemp("measures")
    await fleet.stack.ensure("extraction")
    addresses = {name: address for name, address, _ in fleet.stack.addresses()}
    port = free_port_block(2)
    trainings = await start_part(training_service(fleet, folder, port=port))
    targets = {
        "engines": ([member.url.removeprefix("http://") for member in fleet.members], "/metrics"),
        "envoy": ([f"127.0.0.1:{fleet.ports.stats}"], "/stats/prometheus"),
        "registry": ([fleet.plan.registry_url.removeprefix("http://")], "/metrics"),
        "gateway": ([fleet.plan.gateway_url.removeprefix("http://")], "/metrics"),
        "extraction": ([addresses["extraction"].removeprefix("http://")], "/metrics"),
        "trainings": ([f"127.0.0.1:{port}"], "/metrics"),
    }
    try:
        await trainings.wait_until_healthy()
        version_id = await publish_live(fleet, random_adapter(990, rank=8), user="measured")
        wanted = folder / "wanted.yml"
        wanted.write_text(yaml.safe_dump({"groups": [{"name": "wanted", "rules": [WANTED]}]}))
        rules = [*sorted(RULES.glob("*.rules.yml")), wanted]
        async with running_prometheus(folder, port=port + 1, rules=rules, targets=targets) as prometheus:
            await use_everything(fleet, version_id)
            await until(lambda: are_up(prometheus), within_seconds=60)
            await asyncio.sleep(3)  # every target is looked at each second, and a rate wants two looks
            await use_everything(fleet, version_id)
            with suppress(TimeoutError):  # the tests say which queries have no data
                await until(lambda: seen(prometheus, LATEST), within_seconds=90)
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


async def publish_live(fleet: Fleet, directory: Path, *, user: str) -> str:
    """Publish an adapter, let it serve its user, and return its version."""
    version_id = (await fleet.publish(directory, user=user)).version_id
    owner = Owner(tenant="default", user=user)
    await fleet.registry.move_alias(owner, DEFAULT_ADAPTER, LIVE, version_id=version_id, expected_version_id=None)
    return version_id


async def use_everything(fleet: Fleet, version_id: str) -> None:
    """Ask the user's question through the gateway, and every engine for their adapter as batch work does."""
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
        answer = await member.ask(version_id, **{"x-lorry-class": "batch"})
        assert answer.status_code == 200, answer.text


async def seen(prometheus: Prometheus, expr: str) -> bool:
    return bool(await prometheus.ask(expr))


async def are_up(prometheus: Prometheus) -> bool:
    return set((await prometheus.targets()).values()) == {"up"}


async def test_every_target_is_found(measured: Prometheus) -> None:
    await until(lambda: are_up(measured), within_seconds=30)
    assert {name.split("/")[0] for name in await measured.targets()} == {
        *("engines", "envoy", "registry", "gateway", "extraction", "trainings")
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
async def test_every_panel_has_data_or_says_why_it_may_have_none(measured: Prometheus, page: object) -> None:
    empty = []
    for query in page.queries():  # type: ignore[attr-defined]
        assert isinstance(query, Query)
        if not await measured.ask(query.expr) and not query.may_be_empty:
            empty.append(query.expr)
        if "envoy_" in query.expr:  # some have no Envoy; here it runs, and what it calls its series must be so
            empty += [each for each in selectors(query.expr) if not await measured.ask(each)]
    assert not empty


def selectors(expr: str) -> list[str]:
    """Return the series that an expression looks at, each with its matchers."""
    return [f"{metric}{matchers}" for metric, matchers in SELECTOR.findall(GROUPING.sub("", expr))]


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
    assert selectors(expr), expr
    for selector in selectors(expr):
        if not ONLY_ONCE_SOMETHING_FAILED.search(selector):
            assert await measured.ask(selector), selector


def test_there_are_rules_to_look_at() -> None:
    """A folder that is not there has no rules, and every test of each would pass."""
    assert {"gateway.rules.yml", "engine.rules.yml"} <= {path.name for path in RULES.glob("*.rules.yml")}


async def test_nothing_fires_while_nothing_is_wrong(measured: Prometheus) -> None:
    firing = await measured.ask('ALERTS{alertname=~"Lorry.*",alertstate="firing"}')
    assert [each["metric"]["alertname"] for each in firing] == []


async def test_an_engine_that_stands_still_is_seen(fleet: Fleet, measured: Prometheus) -> None:
    async with fleet.members[1].standing_still():
        expr = 'envoy_cluster_membership_healthy{envoy_cluster_name="engines"} == 1'
        await until(lambda: seen(measured, expr), within_seconds=60)
        await until(lambda: seen(measured, 'up{job="engines"} == 0'), within_seconds=60)
    await fleet.until_healthy(2)
