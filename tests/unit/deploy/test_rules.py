"""The alert rules name measures that exist, and every rule says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from registry.metrics import RegistryMetrics
from serving.jobs.metrics import ExtractionMetrics
from tests.support.engine_metrics import engine_metrics

PARTS = r"_(total|sum|count|bucket)$"
RULES = Path(__file__).resolve().parents[3] / "deploy" / "prometheus"


def alerts() -> list[dict[str, Any]]:
    files = sorted(RULES.glob("*.rules.yml"))
    assert files
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def exposed() -> str:
    others = (RegistryMetrics().collectors, ExtractionMetrics().collectors)
    return "".join(generate_latest(each).decode() for each in (engine_metrics(), *others))


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_measures_that_exist_and_says_what_to_do(rule: dict[str, Any]) -> None:
    names = re.findall(r"\blorry_\w+", rule["expr"])
    assert names
    for name in names:
        assert re.search(rf"^# TYPE {re.sub(PARTS, '', name)}(_total)? ", exposed(), re.MULTILINE), name
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]


@pytest.mark.parametrize(("file", "least"), [("engine.rules.yml", 10), ("extraction.rules.yml", 7)])
def test_alerts_ask_for_values_that_labels_have(file: str, least: int) -> None:
    """All of these series are there from the start, so a value that has none is a slip of the pen."""
    text = exposed()
    asked = 0
    for rule in yaml.safe_load((RULES / file).read_text())["groups"][0]["rules"]:
        for name, matchers in re.findall(r"\b(lorry_\w+)\{([^}]*)\}", rule["expr"]):
            for label, values in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
                for value in values.split("|"):
                    assert re.search(rf'^{name}\{{[^}}]*{label}="{value}"', text, re.MULTILINE), (name, label, value)
                    asked += 1
    assert asked > least
