"""The alert rules name measures that exist, and every rule says what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from registry.metrics import RegistryMetrics
from serving.jobs.metrics import ExtractionMetrics
from tests.support.engine_metrics import engine_metrics
from training.service.metrics import TrainingMetrics

PARTS = r"_(total|sum|count|bucket)$"
ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "deploy" / "prometheus"


def alerts() -> list[dict[str, Any]]:
    files = sorted(RULES.glob("*.rules.yml"))
    assert files
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def exposed() -> str:
    collectors = (
        engine_metrics(),
        RegistryMetrics().collectors,
        TrainingMetrics().collectors,
        ExtractionMetrics().collectors,
    )
    return "".join(generate_latest(each).decode() for each in collectors)


def anchors(page: str) -> set[str]:
    """The places in a page that can be linked to, as they are made of its headings."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_measures_that_exist_and_says_what_to_do(rule: dict[str, Any]) -> None:
    names = re.findall(r"\blorry_\w+", rule["expr"])
    assert names
    for name in names:
        assert re.search(rf"^# TYPE {re.sub(PARTS, '', name)}(_total)? ", exposed(), re.MULTILINE), name
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]


@pytest.mark.parametrize(
    ("file", "least"), [("engine.rules.yml", 10), ("extraction.rules.yml", 7), ("training.rules.yml", 2)]
)
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


def test_every_training_alert_leads_to_a_chapter_that_exists() -> None:
    rules = yaml.safe_load((RULES / "training.rules.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor in anchors(page), rule["alert"]
    assert len({rule["annotations"]["runbook"] for rule in rules}) == len(rules) == 7


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_training_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    rules = str(RULES / "training.rules.yml")
    case = tmp_path / "test.yml"
    case.write_text((Path(__file__).parent / "training_rules_test.yml").read_text().replace("RULES", rules, 1))
    done = subprocess.run(["promtool", "test", "rules", str(case)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
