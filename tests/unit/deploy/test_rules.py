"""The alert rules name measures that exist, and every rule says what to do and where its runbook is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.service_measures import exposed_measures

PARTS = r"_(total|sum|count|bucket)$"
ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "deploy" / "prometheus"


def alerts() -> list[dict[str, Any]]:
    files = sorted(RULES.glob("*.rules.yml"))
    assert files
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def anchors(page: str) -> set[str]:
    """The places in a page that can be linked to, as they are made of its headings."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_measures_that_exist_and_says_what_to_do(rule: dict[str, Any]) -> None:
    names = re.findall(r"\blorry_\w+", rule["expr"])
    assert names or re.search(r"\b(lorry:|envoy_)", rule["expr"])
    for name in names:
        assert re.search(rf"^# TYPE {re.sub(PARTS, '', name)}(_total)? ", exposed_measures(), re.MULTILINE), name
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]


def test_every_alert_leads_to_a_chapter_of_its_own_that_exists() -> None:
    links = [rule["annotations"].get("runbook_url", rule["alert"]) for rule in alerts()]
    for link in links:
        assert re.fullmatch(r"docs/(operations|jobs|extractions)\.md#[a-z0-9-]+", link), link
        page, _, anchor = link.partition("#")
        assert anchor in anchors(page), link
    assert len(links) == len(set(links))


@pytest.mark.parametrize(
    ("file", "least"), [("engine.rules.yml", 10), ("extraction.rules.yml", 7), ("training.rules.yml", 2)]
)
def test_alerts_ask_for_values_that_labels_have(file: str, least: int) -> None:
    """All of these series are there from the start, so a value that has none is a slip of the pen."""
    text = exposed_measures()
    asked = 0
    for rule in yaml.safe_load((RULES / file).read_text())["groups"][0]["rules"]:
        for name, matchers in re.findall(r"\b(lorry_\w+)\{([^}]*)\}", rule["expr"]):
            for label, values in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
                for value in values.split("|"):
                    assert re.search(rf'^{name}\{{[^}}]*{label}="{value}"', text, re.MULTILINE), (name, label, value)
                    asked += 1
    assert asked > least
