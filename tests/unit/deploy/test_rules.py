"""The alert rules name measures that exist, and every rule says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from registry.metrics import RegistryMetrics
from serving.engine.metrics import EngineMetrics

RULES = Path(__file__).resolve().parents[3] / "deploy" / "prometheus"


def alerts() -> list[dict[str, Any]]:
    files = sorted(RULES.glob("*.rules.yml"))
    assert files
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def exposed() -> str:
    engine = CollectorRegistry()
    EngineMetrics(engine)
    return generate_latest(engine).decode() + generate_latest(RegistryMetrics().collectors).decode()


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_measures_that_exist_and_says_what_to_do(rule: dict[str, Any]) -> None:
    names = re.findall(r"\blorry_\w+", rule["expr"])
    assert names
    for name in names:
        assert re.search(rf"^# TYPE {name.removesuffix('_total')}(_total)? ", exposed(), re.MULTILINE), name
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
