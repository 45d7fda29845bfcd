"""What objects of the chart say of one another: budgets of pods, measures of services, doors of callers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.chart import MATRIX, objects, of_kind, templates
from tests.support.helm import helm

Labels = dict[str, str]
_COMPONENT = "app.kubernetes.io/component"


@pytest.fixture(scope="module", autouse=True)
def _helm() -> None:
    helm()


def matches(selector: dict[str, Any], labels: Labels) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


@pytest.mark.parametrize("name", MATRIX)
def test_a_drain_of_nodes_takes_what_serves_and_works_one_by_one(name: str) -> None:
    """Bundled parts have one pod, which nothing could take the place of."""
    found = objects(name)
    budgets = [each["spec"] for each in of_kind(found, "PodDisruptionBudget").values()]
    for part, each in of_kind(found, "Deployment", "StatefulSet").items():
        if part in {"lorry-postgres", "lorry-objects"}:
            continue
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert [budget["maxUnavailable"] for budget in budgets if matches(budget["selector"], labels)] == [1], part


@pytest.mark.parametrize("name", MATRIX)
def test_every_monitor_finds_a_port_of_a_service_and_none_is_without(name: str) -> None:
    found = objects(name)
    monitors = of_kind(found, "ServiceMonitor")
    for part, monitor in monitors.items():
        services = [
            each
            for each in of_kind(found, "Service").values()
            if matches(monitor["spec"]["selector"], each["metadata"]["labels"])
        ]
        for endpoint in monitor["spec"]["endpoints"]:
            assert any(endpoint["port"] in {port["name"] for port in each["spec"]["ports"]} for each in services), part
    if MATRIX[name].get("monitoring", {}).get("serviceMonitors"):
        serving = [each["spec"]["selector"] for each in of_kind(found, "Service").values() if "ports" in each["spec"]]
        measured = {each["spec"]["selector"]["matchLabels"][_COMPONENT] for each in monitors.values()}
        assert {each[_COMPONENT] for each in serving} - {"postgres", "objects"} <= measured


@pytest.mark.parametrize("name", MATRIX)
def test_whoever_calls_a_part_is_let_in_by_it(name: str) -> None:
    found = objects(name)
    services, policies = of_kind(found, "Service"), of_kind(found, "NetworkPolicy")
    made = templates(found)
    calls = 0
    for caller, template in made.items():
        labels = template["metadata"]["labels"]
        for container in template["spec"]["containers"]:
            for each in container.get("env", []):
                for called, port in re.findall(r"http://(lorry-[\w-]+?)(?::(\d+))?(?:/|$)", each.get("value", "")):
                    selector = services[called]["spec"]["selector"]
                    behind = [other["metadata"]["labels"] for other in made.values()]
                    (target,) = [other for other in behind if selector.items() <= other.items()]
                    calls += 1
                    for policy in policies.values():
                        if matches(policy["spec"]["podSelector"], target):
                            assert _lets_in(policy, labels, int(port)), f"{caller} calls {called}:{port}"
    assert calls, "somebody calls somebody"


def _lets_in(policy: dict[str, Any], caller: Labels, port: int) -> bool:
    return any(
        port in {each["port"] for each in rule["ports"]}
        and any("podSelector" in each and matches(each["podSelector"], caller) for each in rule["from"])
        for rule in policy["spec"].get("ingress", [])
    )
