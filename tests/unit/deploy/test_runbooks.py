"""Whatever a runbook or an alert tells an operator to type, to look at or to set is there under that name."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from fastapi.responses import JSONResponse

from deploy.dashboards.__main__ import PAGES
from kit.settings import variable
from lorry.cli import app
from lorry.settings_page import PROCESSES
from serving.engine.api import Api
from tests.support.helm import CHART, render
from tests.support.service_measures import exposed_measures

ROOT = Path(__file__).resolve().parents[3]
RULES = sorted((ROOT / "deploy" / "prometheus").glob("*.rules.yml"))
RUNBOOKS = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("operations", "jobs", "extractions")}
ALERTS = [
    rule
    for file in RULES
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
TEXTS = {
    **RUNBOOKS,
    **{name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("engine", "erasure", "registry-alone")},
    **{rule["alert"]: " ".join(rule["annotations"].values()) for rule in ALERTS},
    **{
        str(path.relative_to(ROOT)): path.read_text()
        for path in (
            *sorted((ROOT / "deploy").glob("compose*")),
            ROOT / "deploy" / "envoy" / "envoy.yaml",
            ROOT / "deploy" / "images" / "Dockerfile",
            CHART / "values.yaml",
            CHART / "templates" / "NOTES.txt",
        )
    },
}
NO_PROCESS_READS = {"LORRY_HOME", "LORRY_VERSION", "LORRY_URL", "LORRY_KEY"}  # Compose's own, and callers' in examples
PANELS = {
    title.lower().removeprefix("lorry: ")
    for page in PAGES
    for title in (
        page.title,
        *(row.title for row in page.rows),
        *(each.title for row in page.rows for each in row.panels),
    )
}


exposed = cache(exposed_measures)
lorry: Any = cache(lambda: typer.main.get_command(app))


def chapters(page: str) -> dict[str, str]:
    """The chapters of a page below the heading under which its alerts are, by their headings."""
    _, _, below = RUNBOOKS[page].partition("## Alerts\n" if page == "operations" else "## When an alert fires\n")
    assert below, page
    _, *found = re.split(r"^### (.+)\n", re.split(r"^## ", below, flags=re.MULTILINE)[0], flags=re.MULTILINE)
    return dict(zip(found[::2], found[1::2], strict=True))


def said() -> list[tuple[str, str]]:
    """Every line of the command that texts have in backticks, or have run in a container, with where it stands."""
    found = set()
    for where, text in TEXTS.items():
        quoted = re.findall(r"`(?:[A-Z_]+=\S+ )*(lorry [^`]+)`", text)
        inside = re.findall(r"\b(?:exec|run) [^\n`]* (?:gateway |LORRY_TENANT=\w+ |--entrypoint )(lorry [^`\n]+)", text)
        found |= {(where, re.split(r"   |  #", line)[0]) for line in (*quoted, *inside)}
    return sorted(found)


@pytest.mark.parametrize(("where", "line"), said())
def test_every_command_exists_with_its_options(where: str, line: str) -> None:
    command = lorry()
    words = iter(shlex.split(line.replace("lorry gateway ", "lorry "))[1:])  # --entrypoint lorry, and the service
    for word in words:
        commands = getattr(command, "commands", {})
        if word.startswith("--"):
            (option,) = [each for each in command.params if word in each.opts] or [None]
            assert option is not None, f"{where}: {word}: no such option"
            if not option.is_flag:
                next(words, None)
        elif commands:
            assert word in commands, f"{where}: {word}: no such command"
            command = commands[word]


def test_commands_are_found_in_pages_alerts_and_comments() -> None:
    found = said()
    assert len(found) > 60
    assert {"operations", "LorryEngineLapsed", "deploy/compose.yaml"} <= {where for where, _ in found}


@pytest.mark.parametrize("where", TEXTS)
def test_every_setting_exists(where: str) -> None:
    known = {variable(name) for settings in PROCESSES.values() for name in settings.model_fields}
    named = set(re.findall(r"\bLORRY_[A-Z0-9_]*[A-Z0-9]\b(?!_|…)", TEXTS[where])) - NO_PROCESS_READS
    assert named <= known


@pytest.mark.parametrize("where", TEXTS)
def test_every_module_that_is_started_exists(where: str) -> None:
    for name in re.findall(r"python3? -m ([a-z_.]+[a-z])", TEXTS[where]):
        assert importlib.util.find_spec(name) is not None, name


@pytest.mark.parametrize("where", TEXTS)
def test_every_measure_exists(where: str) -> None:
    for name in re.findall(
        r"`?\b(lorry_[a-z_]+[a-z])\b(?!\.log|_…|/|`? of)", re.sub(r"`lorry_objects`", "", TEXTS[where])
    ):
        bare = re.sub(r"_(total|sum|count|bucket)$", "", name)
        assert re.search(rf"^# TYPE {bare}(_total)? ", exposed(), re.MULTILINE), name


@pytest.mark.parametrize("where", TEXTS)
def test_every_route_of_an_engine_exists(where: str) -> None:
    async def ready() -> JSONResponse:
        return JSONResponse({})

    routes = {re.sub(r"\{\w+\}", "*", route.path) for route in Api(ready=ready).router().routes}  # type: ignore[attr-defined]
    known = {part for route in routes for part in (route, route.removesuffix("/*"))}
    for path in re.findall(r"(?<![\w.])(/lorry/[a-z]+)\b(?!/)", TEXTS[where]):
        if path not in {"/lorry/adapters", "/lorry/training"}:  # /var/lib/lorry/training is a folder
            assert path in known, path


def test_every_alert_has_a_chapter_and_every_chapter_an_alert() -> None:
    linked = {rule["annotations"]["runbook_url"] for rule in ALERTS}
    written = {
        f"docs/{page}.md#{re.sub(r'[^a-z0-9 -]', '', heading.lower()).replace(' ', '-')}"
        for page in RUNBOOKS
        for heading in chapters(page)
    }
    assert linked == written


@pytest.mark.parametrize(
    ("page", "heading"),
    [(page, heading) for page in RUNBOOKS for heading in chapters(page)],
    ids=lambda each: str(each),
)
def test_a_chapter_says_where_to_look_and_names_what_dashboards_have(page: str, heading: str) -> None:
    text = chapters(page)[heading]
    assert re.search(r"`|\]\(|\*", text), "a command, a link or a panel"
    for title in re.findall(r"(?<!\*)\*([^*`\n]+)\*(?!\*)", text):
        assert title.lower() in {*PANELS, "missing", "everybody"}, title


def test_every_dashboard_that_a_page_names_exists() -> None:
    for text in RUNBOOKS.values():
        named = re.findall(r"dashboards?(?: is|:)? ((?:\*[^*]+\*(?:, )?)+)", text, re.IGNORECASE)
        assert named
        for each in named:
            assert {title.lower() for title in re.findall(r"\*([^*]+)\*", each)} <= PANELS


def test_every_value_of_the_chart_exists() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    named = re.findall(r"`([a-z]\w+(?:\.[A-Za-z_]\w*|\.\*)+)(?:[:`} ])", RUNBOOKS["operations"])
    named += re.findall(r"`networkPolicies\.\w+`", "".join(RUNBOOKS.values()))
    looked_at = 0
    for path in (each.strip("`").split(".") for each in named):
        if path[0] not in schema:
            continue
        found: dict[str, Any] = {"properties": schema}
        for name in path:
            if name == "*" or name in found.get("propertyNames", {}).get("enum", []):
                break  # all of them; a setting, which its part knows
            assert name in found["properties"], ".".join(path)
            found = found["properties"][name]
            if path[0] == "otherEngines":
                break  # what follows is the operator's own name
        looked_at += 1
    assert looked_at > 15


def test_every_object_of_a_release_exists() -> None:
    found = render({"otherEngines": {"new": {"path": "new"}}})
    there = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in found}
    labels = {each["metadata"]["labels"]["app.kubernetes.io/component"] for each in found}
    text = RUNBOOKS["operations"] + RUNBOOKS["extractions"] + RUNBOOKS["jobs"]
    named = re.findall(r"\b(deployment|statefulset|service|cronjob|job)[/ ](lorry-[\w-]+)", text)
    assert len(named) > 5
    for kind, name in named:
        assert f"{kind}/{name}" in there, name
    for component in re.findall(r"app\.kubernetes\.io/component=([\w-]+)", text):
        assert component in labels
    assert "app.kubernetes.io/instance=lorry`" in text


def test_every_service_of_compose_exists() -> None:
    known = set(yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"])
    named = re.findall(r"docker compose [^\n`]*?exec(?: -\w+)* (\w+)", "".join(TEXTS.values()))
    assert len(named) >= 4
    assert set(named) <= known
