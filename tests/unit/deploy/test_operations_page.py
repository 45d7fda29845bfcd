"""What docs/operations.md reckons with is computed, what it points to is there, and its values are the chart's."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import MATRIX, pods
from tests.support.helm import CHART, render, rendered

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "operations.md").read_text()
ROWS = re.findall(r"^\| ([\w.-]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
RANK = 16


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_bytes_of_an_adapter_follow_from_the_bases_shape(row: tuple[str, ...]) -> None:
    hidden, middle, keys, layers, stored, slot = map(int, row[1:])
    attention = 2 * (hidden + hidden) + 2 * (hidden + keys)
    numbers = RANK * layers * (attention + 3 * (hidden + middle))
    assert (round(4 * numbers / 1e6), round(2 * numbers / 1e6)) == (stored, slot)


def test_what_is_reckoned_with_was_measured_and_reckoned_right() -> None:
    """The figures of the benchmarks' page, as it has them now."""
    measured = (ROOT / "docs" / "benchmarks.md").read_text()
    slots, cold = (
        next(line for line in measured.splitlines() if line.startswith(f"| `{name}` | ") and "| E," in line)
        for name in ("engine_slot_pressure", "engine_cold_load")
    )
    tokens, answer, seconds, users = re.findall(r"([\d.]+) ÷ (\d+) × (\d+) = ([\d,]+) users an engine", PAGE)[0]
    assert f"and {tokens} against" in slots
    assert round(float(tokens) / int(answer) * int(seconds)) == int(users.replace(",", ""))
    ours, bare = re.findall(r"(\d+) ms more for 19.6 MB where the same bytes' bare way\s+took (\d+) ms", PAGE)[0]
    assert f"({ours} against {bare} ms" in cold


def test_the_table_has_bases_of_several_sizes() -> None:
    assert len(ROWS) >= 4


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-")
        for each in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors


def test_every_file_that_is_named_is_there() -> None:
    for path in re.findall(r"`((?:deploy|helm|tests|scripts)/[\w/.-]+)`", PAGE):
        assert (ROOT / path).exists(), path


def test_every_benchmark_that_is_named_is_one() -> None:
    for name in re.findall(r"make bench NAME=(\w+)", PAGE):
        assert (ROOT / "bench" / f"{name}.py").exists(), name


def test_the_least_values_that_the_page_gives_are_the_charts() -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    values = yaml.safe_load(found[1])
    sets = [each for each in render(values) if each["kind"] == "StatefulSet"]
    (engine,) = [each for each in sets if each["metadata"]["name"] == "lorry-engine"]
    (container,) = engine["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith(f"{values['image']['registry']}/lorry/engine:")
    told = {each["name"]: each.get("value") for each in container["env"]}
    assert told["LORRY_BASE_DIRECTORY"] == f"/base/{values['base']['path']}"


def test_every_key_of_the_secret_is_made_somewhere_on_the_page() -> None:
    asked: set[str] = set()
    for values in MATRIX.values():
        text = rendered(values)
        asked |= set(re.findall(r"secretKeyRef: {name: [^,]+, key: ([\w.-]+)}", text))
        asked |= {item["key"] for pod in pods(render(values)).values() for item in items_of(pod)}
    made = set(re.findall(r"--from-(?:literal|file)=([\w.-]+)=", PAGE))
    assert len(asked) > 12
    assert made == asked
    listed = re.findall(r"^#   (\S+(?:, \S+)*) {2,}", (CHART / "values.yaml").read_text(), re.MULTILINE)
    listed += re.findall(r"^#   (\S+)$", (CHART / "values.yaml").read_text(), re.MULTILINE)
    assert {key for line in listed for key in line.split(", ")} == asked
    (least, bundled) = re.findall(r"kubectl create secret generic lorry (.*?)```", PAGE, re.DOTALL)
    for text, chosen in ((least, "defaults"), (bundled, "bundled")):
        needed = set(re.findall(r"key: ([\w.-]+)}", rendered(MATRIX[chosen])))
        given = re.findall(r"--from-(?:literal|file)=([\w.-]+)=", text)
        assert len(given) == len(set(given)), "kubectl refuses a key that is given twice"
        assert needed <= set(given)


def items_of(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """What a pod mounts of Secrets."""
    return [item for volume in pod["volumes"] for item in volume.get("secret", {}).get("items", [])]


def test_the_values_for_an_ingress_are_the_charts() -> None:
    found = re.search(r"```yaml\n(gateway:.*?)```", PAGE, re.DOTALL)
    assert found is not None
    values = yaml.safe_load(found[1])
    (ingress,) = [each for each in render(values) if each["kind"] == "Ingress"]
    assert ingress["metadata"]["annotations"] == values["gateway"]["ingress"]["annotations"]


def test_the_values_for_another_base_are_the_charts() -> None:
    found = re.search(r"^## Upgrade the base\n.*?```yaml\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    trained = re.search(r"`(trainers: {.*?})`", PAGE)
    assert trained is not None
    values = yaml.safe_load(textwrap.dedent(found[1])) | yaml.safe_load(trained[1])
    (name,) = values["otherEngines"]
    sets = {each["metadata"]["name"]: each for each in render(values) if each["kind"] == "StatefulSet"}
    told = {
        part: {
            each["name"]: each.get("value") for each in sets[part]["spec"]["template"]["spec"]["containers"][0]["env"]
        }
        for part in (f"lorry-engine-{name}", "lorry-trainer")
    }
    assert told[f"lorry-engine-{name}"]["LORRY_BASE_DIRECTORY"] == told["lorry-trainer"]["LORRY_TRAINING_BASE"]
    assert f"`kubectl rollout status statefulset/lorry-engine-{name}`" in PAGE
    assert f"component=engine-{name}`" in PAGE
