"""The chart brings the rules and dashboards of deploy, for what is switched on, and scales by measures that exist."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.chart import MATRIX, objects, of_kind
from tests.support.helm import helm, render
from tests.support.prometheus import debians
from tests.support.service_measures import exposed_measures

ROOT = Path(__file__).resolve().parents[3]
GRAFANA = sorted((ROOT / "deploy" / "grafana").glob("*.json"))


@pytest.fixture(scope="module", autouse=True)
def _helm() -> None:
    helm()


def test_engines_grow_by_measures_that_exist_and_do_not_shrink_when_nobody_answers() -> None:
    (scaled,) = of_kind(objects("everything"), "ScaledObject").values()
    triggers = [each["metadata"] for each in scaled["spec"]["triggers"]]
    exposed = exposed_measures()
    for trigger in triggers:
        assert trigger["ignoreNullValues"] == "false"
        for name, matchers in re.findall(r"\b(lorry_\w+)\{([^}]*)\}", trigger["query"]):
            own = dict(re.findall(r'(\w+)=~?"([^"]*)"', matchers))
            assert (own.pop("namespace"), own.pop("pod")) == ("users", "lorry-engine-[0-9]+")
            (label,) = own.items()
            assert re.search(rf'^{name}\{{[^}}]*{label[0]}="{label[1]}"', exposed, re.MULTILINE)


def test_what_engines_grow_by_is_promql(tmp_path: Path) -> None:
    (scaled,) = of_kind(objects("everything"), "ScaledObject").values()
    queries = [each["metadata"]["query"] for each in scaled["spec"]["triggers"]]
    rules = [{"record": f"lorry:scaling:{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    subprocess.run([debians("promtool"), "check", "rules", path], check=True, capture_output=True)


def test_rules_and_dashboards_are_those_of_deploy() -> None:
    found = render({"monitoring": {"rules": True, "dashboards": True, "runbooks": "https://git.example/lorry/"}})
    files = sorted((ROOT / "deploy/prometheus").glob("*.rules.yml"))
    rules = of_kind(found, "PrometheusRule")
    assert set(rules) == {"lorry-wanted", *(f"lorry-{file.name.removesuffix('.rules.yml')}" for file in files)}
    for file in files:
        text = file.read_text().replace("runbook_url: docs/", "runbook_url: https://git.example/lorry/docs/")
        assert rules[f"lorry-{file.name.removesuffix('.rules.yml')}"]["spec"] == yaml.safe_load(text)
    dashboards = {name: text for each in of_kind(found, "ConfigMap").values() for name, text in each["data"].items()}
    for file in GRAFANA:
        assert dashboards[file.name] == file.read_text()


def test_nobody_is_woken_by_a_part_that_is_switched_off() -> None:
    values = {**MATRIX["no jobs"], "monitoring": {"rules": True}, "engines": {"replicas": 1}}
    rules = of_kind(render({**values, "envoy": {"enabled": False}}), "PrometheusRule")
    assert set(rules) == {"lorry-engine", "lorry-gateway", "lorry-objectives", "lorry-registry"}


def test_rules_know_how_many_engines_there_are_to_be() -> None:
    found = of_kind(render({**MATRIX["two bases"], "monitoring": {"rules": True}}), "PrometheusRule")
    (group,) = found["lorry-wanted"]["spec"]["groups"]
    wanted = {rule["labels"]["envoy_cluster_name"]: rule["expr"] for rule in group["rules"]}
    assert wanted == {"engines": "vector(2)", "engines-next": "vector(3)", "engines-leaving": "vector(2)"}
    assert {(rule["record"], rule["labels"]["namespace"]) for rule in group["rules"]} == {
        ("lorry:engines_wanted", "users")
    }
    text = "".join(path.read_text() for path in (ROOT / "deploy/prometheus").iterdir())
    assert "lorry:engines_wanted" in text
