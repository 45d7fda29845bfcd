"""Dashboards are code: what is committed is what the code draws, and it asks for measures that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deploy.dashboards.__main__ import FOLDER, PAGES
from deploy.dashboards.panels import Page, draw
from tests.support.service_measures import exposed_measures

RULES = Path(__file__).resolve().parents[3] / "deploy" / "prometheus"
PARTS = r"_(total|sum|count|bucket)$"


@pytest.fixture(scope="module")
def exposed() -> str:
    return exposed_measures()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_the_committed_dashboard_is_what_the_code_draws(page: Page) -> None:
    assert (FOLDER / f"{page.uid}.json").read_text() == draw(page), "run: python -m deploy.dashboards"


def test_no_dashboard_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {page.uid for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_every_query_asks_for_measures_that_exist(page: Page, exposed: str) -> None:
    recorded = set(re.findall(r"record: (\S+)", "".join(path.read_text() for path in RULES.glob("*.yml"))))
    for query in page.queries():
        for name in re.findall(r"\blorry_\w+", query.expr):
            assert re.search(rf"^# TYPE {re.sub(PARTS, '', name)}(_total)? ", exposed, re.MULTILINE), name
        for name in re.findall(r"\blorry:\w+:\w+", query.expr):
            assert name in recorded
        assert re.search(r"\b(lorry|vllm|envoy|ALERTS)", query.expr), query.expr


def test_every_recorded_series_is_looked_at() -> None:
    text = "".join(path.read_text() for path in RULES.glob("*.yml"))
    recorded = set(re.findall(r"record: (\S+)", text))
    queries = [query.expr for page in PAGES for query in page.queries()]
    looked_at = "\n".join([re.sub(r"record: \S+", "", text), *queries])
    assert recorded
    assert recorded <= set(re.findall(r"\blorry:\w+:\w+", looked_at))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_what_a_label_is_compared_with_is_a_value_that_it_has(page: Page, exposed: str) -> None:
    for query in page.queries():
        for name, matchers in re.findall(r"\b(lorry_\w+)\{([^}]*)\}", query.expr):
            for label, values in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
                if label == "status":
                    continue  # no request, no status
                for value in values.split("|"):
                    assert re.search(rf'^{name}\{{[^}}]*{label}="{value}"', exposed, re.MULTILINE), (name, label, value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_a_panel_says_what_it_shows_and_fits_its_row(page: Page) -> None:
    titles = [panel.title for row in page.rows for panel in row.panels]
    for row in page.rows:
        for panel in row.panels:
            assert panel.says.endswith(".")
            assert 1 <= panel.width <= 24
    drawn = json.loads(draw(page))
    panels = [each for each in drawn["panels"] if each["type"] != "row"]
    assert [each["title"] for each in panels] == titles
    assert all(each["targets"] for each in panels)
    boxes = [tuple(each["gridPos"][key] for key in ("x", "y")) for each in drawn["panels"]]
    assert len(boxes) == len(set(boxes))
    assert all(each["gridPos"]["x"] + each["gridPos"]["w"] <= 24 for each in drawn["panels"])
