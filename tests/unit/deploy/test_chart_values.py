"""The values of the chart: a misspelling or a contradiction is refused, and what is given arrives."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from kit.settings import variable
from registry.settings import RegistrySettings
from scripts.chart_schema import FREE, SETTINGS, schema
from serving.engine.settings import EngineSettings
from tests.support.chart import environment, pods
from tests.support.helm import CHART, helm, refusal, render, rendered


@pytest.fixture(scope="module", autouse=True)
def _helm() -> None:
    helm()


def test_what_a_setting_is_given_is_what_its_process_reads() -> None:
    """Helm holds numbers as fractions, and writes a large one as 1.2345678e+07, no whole number to settings."""
    given: dict[str, dict[str, int | float | bool]] = {}
    for part, allowed in schema()["properties"].items():
        names = allowed.get("properties", {}).get("settings", {}).get("propertyNames", {}).get("enum", [])
        fields = {variable(key): field for each in SETTINGS.get(part, ()) for key, field in each.model_fields.items()}
        kinds: dict[Any, int | float | bool] = {int: 12_345_678, float: 0.45, bool: False}
        given[part] = {name: kinds[fields[name].annotation] for name in names if fields[name].annotation in kinds}
    given = {part: settings for part, settings in given.items() if settings}
    assert given.keys() == SETTINGS.keys()
    values: dict[str, Any] = {part: {"settings": settings} for part, settings in given.items()}
    values["engines"]["maxCpuLoras"] = 2_000_000
    found = pods(render({**values, "otherEngines": {"next": {"path": "next"}}}))
    for part, settings in [*given.items(), ("engine-next", given["engines"])]:
        (told,) = [environment(pod) for name, pod in found.items() if name in {f"lorry-{part}", f"lorry-{part[:-1]}"}]
        assert {name: told[name] for name in settings} == {name: str(each).lower() for name, each in settings.items()}
        assert told.get("LORRY_MAX_CPU_LORAS", "2000000") == "2000000"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"gatway": {}}, "gatway"),
        ({"gateway": {"replica": 2}}, "replica"),
        ({"engines": {"settings": {"LORRY_MAX_NUM_SEQ": 8}}}, "LORRY_MAX_NUM_SEQ"),
        ({"registry": {"settings": {"LORRY_REGISTRY_TOKEN": "in the open"}}}, "LORRY_REGISTRY_TOKEN"),
        ({"extractors": {"settings": {"LORRY_EXTRACTION_LEASE": 8}}}, "LORRY_EXTRACTION_LEASE"),
        ({"engines": {"maxLoraRank": 24}}, "maxLoraRank"),
        ({"engines": {"cache": {"size": "100 GB"}}}, "size"),
        ({"engines": {"cache": {"size": "100K"}}}, "size"),
        ({"engines": {"settings": {"LORRY_ADAPTER_CACHE_GIB": 500}}}, "LORRY_ADAPTER_CACHE_GIB"),
        ({"image": {"digests": {"engine": "0123"}}}, "engine"),
        ({"image": {"digests": {"gateway": ""}}}, "gateway"),
        ({"image": {"tag": "latest"}}, "tag"),
        ({"image": {"pullSecrets": [{"nam": "pull"}]}}, "nam"),
        ({"engines": {"resources": {"limit": {"memory": "1Gi"}}}}, "limit"),
        ({"gateway": {"resources": {"requests": {"cpus": 1}}}}, "cpus"),
        ({"trainers": {"resources": {"limits": {"nvidia.com/gpu": 2}}}}, "nvidia.com/gpu"),
        ({"registry": {"resources": {"limits": {"memory": "1 GB"}}}}, "memory"),
        ({"engines": {"tolerations": [{"efect": "NoSchedule"}]}}, "efect"),
        ({"networkPolicies": {"gatewayFrom": [{"namespaceselector": {}}]}}, "namespaceselector"),
        ({"networkPolicies": {"metricsFrom": [{"podSelector": {"matchlabels": {}}}]}}, "matchlabels"),
        ({"networkPolicies": {"registryFrom": [{}]}}, "registryFrom"),
        ({"engines": {"startSeconds": 5}}, "startSeconds"),
        ({"engines": {"replicas": 5, "autoscaling": {"enabled": True}}}, "engines.autoscaling.maxReplicas"),
        ({"masterKeyFile": False}, "LORRY_KMS_KEY_ID"),
        (
            {"engines": {"settings": {"LORRY_ENGINE_LEASE_SECONDS": 300}}},
            "registry.settings.LORRY_ENGINE_LEASE_SECONDS",
        ),
        ({"envoy": {"enabled": False}}, "envoy.enabled"),
        ({"gateway": {"ingress": {"enabled": True}}}, "gateway.ingress.host"),
        ({"signing": True}, "signingPublicKey"),
        ({"otherEngines": {"next": {}}}, "path"),
        ({"otherEngines": {"next": {"path": ""}}}, "path"),
        ({"otherEngines": {"Next": {"path": "new"}}}, "Next"),
        ({"otherEngines": {"next": {"path": "new", "replica": 2}}}, "replica"),
        ({"otherEngines": {"next": {"path": "new", "maxLoraRank": 32}}}, "maxLoraRank"),
        ({"otherEngines": {"next": {"path": "new", "settings": {"LORRY_MAX_NUM_SEQ": 8}}}}, "LORRY_MAX_NUM_SEQ"),
        (
            {
                "envoy": {"enabled": False},
                "engines": {"replicas": 1},
                "otherEngines": {"next": {"path": "new", "replicas": 2}},
            },
            "envoy.enabled",
        ),
    ],
)
def test_a_misspelling_or_a_contradiction_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    assert named in refusal(values)


def test_a_lease_may_be_raised_on_registries_and_engines_together() -> None:
    raised = {"settings": {"LORRY_ENGINE_LEASE_SECONDS": 3600}}
    assert "3600" in rendered({"engines": raised, "registry": raised})
    for settings in (EngineSettings, RegistrySettings):
        assert settings.model_fields["engine_lease_seconds"].default == 60, "contradictions.yaml reckons with it"


def test_the_schema_knows_every_name_at_every_depth() -> None:
    """Open are labels, annotations, selectors of nodes, and Helm's own `global`."""
    is_open = []
    for path, each in objects_of(schema()):
        names_nothing = each.get("additionalProperties", True) is not False and "propertyNames" not in each
        if names_nothing and each.get("additionalProperties") != {"type": "string"}:
            is_open.append(path)
    assert is_open == [".global"]


def objects_of(found: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every object that a schema describes, with its place."""
    below: list[tuple[str, Any]] = [(f"{path}.{name}", each) for name, each in found.get("properties", {}).items()]
    below += [
        (f"{path}[]", found[key]) for key in ("items", "additionalProperties") if isinstance(found.get(key), dict)
    ]
    own = [(path, found)] if found.get("type") == "object" else []
    return own + [each for name, schema_below in below for each in objects_of(schema_below, name)]


def test_the_schema_is_the_one_that_values_and_settings_give() -> None:
    text = (CHART / "values.schema.json").read_text()
    assert json.loads(text) == schema(), "run: python scripts/chart_schema.py"


def test_no_value_is_dead() -> None:
    """Each leaf of values.yaml is read by some template."""
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    for path in leaves(yaml.safe_load((CHART / "values.yaml").read_text())):
        assert re.search(rf"\.{path[-1]}\b", templates), ".".join(path)


def leaves(values: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, value in values.items():
        is_ours = isinstance(value, dict) and value and name not in {*FREE, "digests"}  # those by the image's name
        found += leaves(value, (*above, name)) if is_ours else [(*above, name)]
    return found
