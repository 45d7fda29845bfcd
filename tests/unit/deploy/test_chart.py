"""The Helm chart: valid for three versions of Kubernetes whatever is switched on, without rights, and of one piece."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from kit.settings import Settings, variable
from lorry.container import PROGRAMS
from lorry.erasure.settings import ErasureSettings
from lorry.settings_page import PROCESSES
from serving.gateway.settings import GatewaySettings
from serving.jobs.settings import ExtractionWorkerSettings
from tests.support.chart import MATRIX, environment, objects, of_kind, pods, templates
from tests.support.helm import CHART, helm, lint, refusal, render, rendered

ROOT = Path(__file__).resolve().parents[3]
GRAFANA = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
VERSIONS = ("1.27", "1.32", "1.37")
FOREIGN = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}


@pytest.fixture(scope="module", autouse=True)
def _helm() -> None:
    helm()


def test_the_chart_passes_helms_own_lint() -> None:
    ended = lint()
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("name", MATRIX)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_kubernetes_knows(name: str, version: str) -> None:
    checked = 0
    for each in objects(name):
        if each["kind"] not in FOREIGN:
            kubernetes_validate.validate(each, version, strict=True)
            checked += 1
    assert checked > 10


@pytest.mark.parametrize("name", MATRIX)
def test_no_two_objects_of_a_kind_share_a_name(name: str) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in objects(name)]
    assert len(names) == len(set(names))


def test_releases_of_any_name_that_helm_takes_have_names_that_kubernetes_takes() -> None:
    longest = {
        "monitoring": {"serviceMonitors": True, "rules": True, "dashboards": True},
        "otherEngines": {"sixteen-letters0": {"path": "next"}},
        "signing": True,
        "signingPublicKey": "abc",
        "engines": {"autoscaling": {"enabled": True}},
    }
    taken: set[tuple[str, str]] = set()
    for release in ("lorry", "our.lorry", "a" * 29, "a" * 52 + "b", "a" * 52 + "c"):
        found = render(longest, release=release)
        names = [(each["kind"], each["metadata"]["name"]) for each in found]
        assert len(names) == len(set(names)), release
        assert not taken & set(names), "two releases in one namespace would take each other's"
        taken |= set(names)
        for kind, name in names:
            assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), name
            assert len(name) <= {"StatefulSet": 52, "ConfigMap": 253}.get(kind, 63), name
        services = of_kind(found, "Service")
        for pod in pods(found).values():
            for value in environment(pod).values():
                assert set(re.findall(r"http://([\w-]+)\.users:", value)) <= set(services), value
    assert "begin with a letter" in refusal({}, release="1st")


@pytest.mark.parametrize("name", MATRIX)
def test_every_container_runs_without_rights_on_a_root_that_cannot_be_written(name: str) -> None:
    for pod in pods(objects(name)).values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert {"requests", "limits"} <= set(container["resources"]), "a namespace with a quota wants them of each"
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("name", MATRIX)
def test_no_service_sets_a_setting(name: str) -> None:
    """Of a Service lorry-gateway Kubernetes tells pods LORRY_GATEWAY_PORT=tcp://10.0.0.1:8080, unless told not to."""
    links = {f"{service.upper().replace('-', '_')}_PORT" for service in of_kind(objects(name), "Service")}
    known = {variable(key) for settings in PROCESSES.values() for key in settings.model_fields}
    assert {"LORRY_GATEWAY_PORT", "LORRY_REGISTRY_PORT"} <= links & known
    for part, pod in pods(objects(name)).items():
        assert pod["enableServiceLinks"] is False, part


@pytest.mark.parametrize("name", MATRIX)
def test_secrets_are_given_by_reference_only(name: str) -> None:
    assert not of_kind(objects(name), "Secret")
    for pod in pods(objects(name)).values():
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            for each in container.get("env", []):
                if re.search(r"TOKEN|PASSWORD|SECRET|DATABASE_URL|SSE_KEY|API_KEY|WEBHOOK_KEY", each["name"]):
                    assert "secretKeyRef" in each["valueFrom"], each["name"]


@pytest.mark.parametrize("name", MATRIX)
def test_what_a_pod_mounts_and_calls_is_there(name: str) -> None:
    found = objects(name)
    services = of_kind(found, "Service")
    claimed = {
        name: {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])}
        for name, each in of_kind(found, "StatefulSet").items()
    }
    for part, pod in pods(found).items():
        claims = claimed.get(part, set())
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | claims
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
            names = [each["name"] for each in container.get("env", [])]
            assert len(names) == len(set(names))
            for each in container.get("env", []):
                for called in re.findall(r"http://(lorry-[\w-]+)", each.get("value", "")):
                    assert called in services, each


@pytest.mark.parametrize("name", MATRIX)
def test_every_role_is_a_role_and_every_selector_meets_its_pods(name: str) -> None:
    found = objects(name)
    labels = [each["metadata"]["labels"] for each in templates(found).values()]
    for each in [*of_kind(found, "Service").values(), *of_kind(found, "PodDisruptionBudget").values()]:
        selector = each["spec"]["selector"]
        selector = selector.get("matchLabels", selector)
        assert any(selector.items() <= every.items() for every in labels), each["metadata"]["name"]
    for pod in pods(found).values():
        for container in pod["containers"]:
            for each in container.get("env", []):
                assert each["name"] != "LORRY_ROLE" or each["value"] in PROGRAMS


@pytest.mark.parametrize("name", MATRIX)
def test_gateways_and_workers_are_told_everything_that_they_cannot_start_without(name: str) -> None:
    needed: dict[str, type[Settings]] = {"gateway": GatewaySettings, "extractor": ExtractionWorkerSettings}
    for part, pod in pods(objects(name)).items():
        if settings := needed.get(part.removeprefix("lorry-")):
            told = {each["name"] for each in pod["containers"][0]["env"]}
            assert {variable(key) for key, field in settings.model_fields.items() if field.is_required()} <= told
            assert "LORRY_S3_BUCKET" in told


@pytest.mark.parametrize("name", MATRIX)
def test_whoever_is_to_be_erased_is_erased_whatever_is_switched_on(name: str) -> None:
    found = objects(name)
    environment = {each["name"]: each for each in pods(found)["lorry-conductor"]["containers"][0]["env"]}
    needed = {variable(key) for key, field in ErasureSettings.model_fields.items() if field.is_required()}
    assert needed | {"LORRY_ENGINE_TOKEN"} <= set(environment)
    assert ("LORRY_WRITER_API_KEY" in environment) == (name == "everything")
    policies = of_kind(found, "NetworkPolicy")
    parts = {"lorry-registry", "lorry-postgres", *(part for part in policies if part.startswith("lorry-engine"))}
    for part in parts & set(policies):
        callers = policies[part]["spec"]["ingress"][0]["from"]
        assert "conductor" in [each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in callers]
    if policies:
        assert "ingress" not in policies["lorry-conductor"]["spec"]


def test_a_packaged_chart_holds_what_it_links_to(tmp_path: Path) -> None:
    subprocess.run([helm(), "package", CHART, "--destination", tmp_path], check=True, capture_output=True)
    (package,) = tmp_path.glob("lorry-*.tgz")
    with tarfile.open(package) as archive:
        held = {member.name for member in archive.getmembers()}
    wanted = {"files/envoy.yaml", "values.schema.json", *(f"files/grafana/{each.name}" for each in GRAFANA)}
    wanted |= {f"files/prometheus/{each.name}" for each in (ROOT / "deploy/prometheus").iterdir()}
    assert {f"lorry/{name}" for name in wanted} <= held


def test_the_release_and_the_chart_are_of_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert chart["version"] == chart["appVersion"] == version[1]
    assert f"lorry/service:{version[1]}" in rendered({})
