"""The Helm chart: valid for three versions of Kubernetes whatever is switched on, and a misspelling is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from kit.settings import variable
from lorry.container import PROGRAMS
from lorry.erasure.settings import ErasureSettings
from lorry.settings_page import PROCESSES
from scripts.chart_schema import FREE, SETTINGS, schema
from serving.gateway.settings import GatewaySettings
from serving.jobs.settings import ExtractionWorkerSettings
from tests.support.gateway_routes import WITHOUT_KEY
from tests.support.helm import CHART, helm, lint, refusal, render, rendered
from tests.support.service_measures import exposed_measures

ROOT = Path(__file__).resolve().parents[3]
GRAFANA = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
VERSIONS = ("1.27", "1.32", "1.37")
MATRIX: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": {
        "signing": True,
        "signingPublicKey": "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----\n",
        "gateway": {
            "settings": {"LORRY_GATEWAY_EXTRACTIONS": 4},
            "ingress": {"enabled": True, "host": "lorry.example", "className": "nginx", "tlsSecret": "lorry-tls"},
        },
        "engines": {
            "autoscaling": {"enabled": True},
            "settings": {"LORRY_WARM_START": False},
            "cache": {"className": "local"},
        },
        "monitoring": {"serviceMonitors": True, "rules": True, "dashboards": True, "labels": {"release": "prometheus"}},
        "networkPolicies": {"gatewayFrom": [{"namespaceSelector": {}}], "trainingsFrom": [{"podSelector": {}}]},
        "trainers": {"writerKey": True},
        "extractors": {"webhookKey": True, "settings": {"LORRY_EXTRACTION_USERS_AT_ONCE": 8}},
        "image": {"registry": "registry.example/ours", "pullSecrets": [{"name": "pull"}]},
    },
    "bundled": {"bundled": {"postgres": {"enabled": True}, "objects": {"enabled": True}}},
    "one engine": {"envoy": {"enabled": False}, "engines": {"replicas": 1}, "extractors": {"replicas": 2}},
    "two bases": {
        "base": {"path": "llama-3.1-8b"},
        "trainers": {"path": "models/llama-next"},
        "signing": True,
        "signingPublicKey": "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----\n",
        "bundled": {"objects": {"enabled": True}},
        "engines": {"autoscaling": {"enabled": True}, "settings": {"LORRY_WARM_START": False}},
        "monitoring": {"serviceMonitors": True},
        "otherEngines": {
            "next": {
                "path": "models/llama-next",
                "replicas": 3,
                "gpus": 4,
                "settings": {"LORRY_MAX_NUM_SEQS": 8},
                "resources": {"limits": {"memory": "200Gi"}},
            },
            "leaving": {"path": "old", "base": "org/old", "routed": False},
        },
    },
    "two bases without Envoy": {
        "envoy": {"enabled": False},
        "engines": {"replicas": 1},
        "otherEngines": {"next": {"path": "next"}},
    },
    "no jobs": {"trainings": {"enabled": False}, "extractors": {"enabled": False}},
    "KMS and roles": {
        "masterKeyFile": False,
        "registry": {"settings": {"LORRY_KMS_KEY_ID": "alias/lorry"}},
        "s3": {"keys": False, "endpoint": "https://s3.example"},
        "serviceAccount": {
            "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/lorry"},
            "resultsAnnotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/results"},
        },
        "networkPolicies": {"enabled": False},
    },
    "odd but legal": {
        "image": {"tag": "2026", "registry": "localhost:5000", "pullPolicy": "Always"},
        "secrets": "123",
        "base": {"claim": "0123", "path": "models/it's, #1: {new}"},
        "gateway": {
            "resources": {"limits": {"memory": None}},
            "ingress": {"enabled": True, "host": "1.2", "className": "on"},
        },
        "engines": {
            "startSeconds": 10,
            "drainSeconds": 0,
            "cache": {"size": "1000", "className": "1"},
            "resources": {"requests": {"cpu": 0.5, "memory": None}, "limits": {"memory": None}},
            "tolerations": [{"operator": "Exists"}],
        },
        "trainers": {"resources": {"requests": None, "limits": {"example.com/fast": 1, "memory": "64Gi"}}},
        "networkPolicies": {
            "gatewayFrom": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
            "metricsFrom": [],
        },
        "monitoring": {"serviceMonitors": True, "labels": {"release": "no"}},
        "serviceAccount": {"annotations": {"number": "1"}},
    },
}
FOREIGN = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}


@pytest.fixture(scope="module", autouse=True)
def _helm() -> None:
    helm()


def objects(name: str) -> list[dict[str, Any]]:
    return render(MATRIX[name])


def of_kind(found: list[dict[str, Any]], *kinds: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in found if each["kind"] in kinds}


def pods(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    workloads = of_kind(found, "Deployment", "StatefulSet", "Job")
    return {name: each["spec"]["template"]["spec"] for name, each in workloads.items()}


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
    for pod in pods(found).values():
        claims = {"cache", "work", "data"}  # made from a StatefulSet's templates
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
    labels = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in of_kind(found, "Deployment", "StatefulSet", "Job").values()
    ]
    for each in [*of_kind(found, "Service").values(), *of_kind(found, "PodDisruptionBudget").values()]:
        selector = each["spec"]["selector"]
        selector = selector.get("matchLabels", selector)
        assert any(selector.items() <= every.items() for every in labels), each["metadata"]["name"]
    for pod in pods(found).values():
        for container in pod["containers"]:
            for each in container.get("env", []):
                assert each["name"] != "LORRY_ROLE" or each["value"] in PROGRAMS


def test_the_database_is_migrated_before_anything_else_unless_it_comes_with_the_chart() -> None:
    job = of_kind(objects("defaults"), "Job")["lorry-migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    bundled = objects("bundled")
    assert not of_kind(bundled, "Job")
    first = [each["name"] for each in pods(bundled)["lorry-registry"]["initContainers"]]
    assert first == ["master-keys", "migrate", "bucket"]


def test_the_master_keys_reach_the_registry_with_the_mode_that_it_wants() -> None:
    container = pods(objects("defaults"))["lorry-registry"]["initContainers"][0]
    assert container["command"][:3] == ["install", "-m", "0600"]
    assert "initContainers" not in pods(objects("KMS and roles"))["lorry-registry"]


@pytest.mark.parametrize(("name", "door"), [("everything", "lorry-envoy"), ("one engine", "lorry-engine")])
def test_an_extraction_worker_may_call_what_it_needs_and_is_called_by_prometheus_alone(name: str, door: str) -> None:
    found = objects(name)
    policies = of_kind(found, "NetworkPolicy")
    for part in (door, "lorry-registry"):
        callers = policies[part]["spec"]["ingress"][0]["from"]
        assert "extractor" in [each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in callers]
    (only,) = policies["lorry-extractor"]["spec"]["ingress"]
    assert [list(each) for each in only["from"]] == [["namespaceSelector"]]
    environment = {each["name"]: each for each in pods(found)["lorry-extractor"]["containers"][0]["env"]}
    assert environment["LORRY_ENGINE_URL"]["value"] == f"http://{door}.users:8100"
    assert environment["LORRY_WORKER_ID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


@pytest.mark.parametrize("name", MATRIX)
def test_gateways_and_workers_are_told_everything_that_they_cannot_start_without(name: str) -> None:
    needed = {"gateway": GatewaySettings, "extractor": ExtractionWorkerSettings}
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


def test_an_extraction_worker_is_given_the_time_to_finish() -> None:
    pod = pods(render({"extractors": {"drainSeconds": 200}}))["lorry-extractor"]
    told = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    assert told["LORRY_EXTRACTION_DRAIN_SECONDS"] == "200"
    assert pod["terminationGracePeriodSeconds"] > 200


def test_measures_and_readiness_which_need_no_key_stay_inside() -> None:
    (ingress,) = of_kind(objects("everything"), "Ingress").values()
    paths = {each["path"]: each["pathType"] for each in ingress["spec"]["rules"][0]["http"]["paths"]}
    assert paths.pop("/v1") == "Prefix"
    assert set(paths.values()) == {"Exact"}
    inside = {path for _, path in WITHOUT_KEY} - set(paths)
    assert inside == {"/metrics", "/readyz"}


def test_a_gateway_and_envoy_are_given_the_time_to_finish() -> None:
    found = pods(render({"gateway": {"drainSeconds": 400}, "envoy": {"drainSeconds": 500}}))
    gateway, envoy = found["lorry-gateway"], found["lorry-envoy"]
    told = environment(gateway)
    assert told["LORRY_GATEWAY_DRAIN_SECONDS"] == "400"
    pause = int(gateway["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1])
    notice = float(told["LORRY_GATEWAY_NOTICE_SECONDS"])
    assert gateway["terminationGracePeriodSeconds"] > pause + notice + 400
    (container,) = envoy["containers"]
    assert container["command"][container["command"].index("--drain-time-s") + 1] == "500"
    assert container["lifecycle"]["preStop"]["exec"]["command"][-1].endswith("sleep 500")
    assert envoy["terminationGracePeriodSeconds"] > 500


def test_an_engine_is_drained_before_it_is_stopped_and_given_the_time() -> None:
    pod = pods(render({"engines": {"drainSeconds": 300}}))["lorry-engine"]
    assert pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-2:] == ["drain", "300"]
    assert pod["terminationGracePeriodSeconds"] > 300


@pytest.mark.parametrize(("values", "engines"), [({}, 2), ({"autoscaling": {"enabled": True, "maxReplicas": 5}}, 5)])
def test_envoys_configuration_is_the_one_of_deploy_with_a_place_for_every_engine(
    values: dict[str, Any], engines: int
) -> None:
    data = of_kind(render({"engines": values}), "ConfigMap")["lorry-envoy"]["data"]
    found, wanted = yaml.safe_load(data["envoy.yaml"]), yaml.safe_load((ROOT / "deploy/envoy/envoy.yaml").read_text())
    places = []
    for document in (found, wanted):
        (cluster,) = [each for each in document["static_resources"]["clusters"] if each["name"] == "engines"]
        places.append([each["endpoint"] for each in cluster["load_assignment"].pop("endpoints")[0]["lb_endpoints"]])
    assert found == wanted
    assert [each["hostname"] for each in places[0]] == [f"lorry-engine-{number}" for number in range(engines)]
    assert places[0][1]["address"]["socket_address"]["address"] == "lorry-engine-1.lorry-engine.users"


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


def test_every_base_has_engines_of_its_own_and_is_asked_for_at_their_address() -> None:
    found = objects("two bases")
    told = {name: environment(pod) for name, pod in pods(found).items()}
    for part in ("gateway", "extractor"):
        assert told[f"lorry-{part}"]["LORRY_ENGINE_URL"] == "http://lorry-envoy.users:8100"
        urls = json.loads(told[f"lorry-{part}"]["LORRY_BASE_ENGINE_URLS"])
        assert urls == {"llama-next": "http://lorry-envoy-next.users:8100"}, "who leaves is asked for nothing more"
    bases = {name: each["LORRY_BASE_DIRECTORY"] for name, each in told.items() if "LORRY_BASE_DIRECTORY" in each}
    assert bases == {
        "lorry-engine": "/base/llama-3.1-8b",
        "lorry-engine-next": "/base/models/llama-next",
        "lorry-engine-leaving": "/base/old",
    }
    assert told["lorry-trainer"]["LORRY_TRAINING_BASE"] == "/base/models/llama-next"
    assert told["lorry-engine-next"]["LORRY_ENGINE_ADDRESS"] == "http://$(POD).lorry-engine-next.users:8100"
    monitored = set(of_kind(found, "ServiceMonitor"))
    for name in bases:
        assert name in set(of_kind(found, "NetworkPolicy")) & set(of_kind(found, "PodDisruptionBudget")) & monitored
    assert not {name for name in monitored if name.startswith("lorry-envoy-")}, "one Envoy is not measured twice"
    for name in ("lorry-registry", "lorry-objects"):
        callers = of_kind(found, "NetworkPolicy")[name]["spec"]["ingress"][0]["from"]
        parts = [each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in callers]
        assert {"engine", "engine-next", "engine-leaving"} <= set(parts)


def test_engines_of_another_base_are_like_the_others_but_for_what_they_say() -> None:
    found = objects("two bases")
    sets = of_kind(found, "StatefulSet")
    first, following = sets["lorry-engine"]["spec"], sets["lorry-engine-next"]["spec"]
    assert "replicas" not in first, "KEDA's to say"
    assert (following["replicas"], sets["lorry-engine-leaving"]["spec"]["replicas"]) == (3, 2)
    told = environment(following["template"]["spec"])
    assert (told["LORRY_WARM_START"], told["LORRY_MAX_NUM_SEQS"]) == ("false", "8")
    (container,) = following["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 4, "memory": "200Gi"}
    assert container["resources"]["requests"] == first["template"]["spec"]["containers"][0]["resources"]["requests"]
    (scaled,) = of_kind(found, "ScaledObject").values()
    assert scaled["spec"]["scaleTargetRef"]["name"] == "lorry-engine"
    queries = [each["metadata"]["query"] for each in scaled["spec"]["triggers"]]
    assert all('pod=~"lorry-engine-[0-9]+"' in query for query in queries), "others' queues are no reason to grow"


def test_engines_grow_by_measures_that_exist_and_do_not_shrink_when_nobody_answers(tmp_path: Path) -> None:
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
    if promtool := shutil.which("promtool"):
        rules = [{"record": f"lorry:scaling:{number}", "expr": each["query"]} for number, each in enumerate(triggers)]
        path = tmp_path / "queries.yml"
        path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
        subprocess.run([promtool, "check", "rules", path], check=True, capture_output=True)


def test_one_engine_a_base_is_asked_directly_without_envoy() -> None:
    told = environment(pods(objects("two bases without Envoy"))["lorry-gateway"])
    assert told["LORRY_ENGINE_URL"] == "http://lorry-engine.users:8100"
    assert json.loads(told["LORRY_BASE_ENGINE_URLS"]) == {"next": "http://lorry-engine-next.users:8100"}
    assert "LORRY_BASE_ENGINE_URLS" not in environment(pods(objects("defaults"))["lorry-gateway"])


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in pod["containers"][0].get("env", [])}


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


def test_a_packaged_chart_holds_what_it_links_to(tmp_path: Path) -> None:
    subprocess.run([helm(), "package", CHART, "--destination", tmp_path], check=True, capture_output=True)
    (package,) = tmp_path.glob("lorry-*.tgz")
    with tarfile.open(package) as archive:
        held = {member.name for member in archive.getmembers()}
    wanted = {"files/envoy.yaml", "values.schema.json", *(f"files/grafana/{each.name}" for each in GRAFANA)}
    wanted |= {f"files/prometheus/{each.name}" for each in (ROOT / "deploy/prometheus").iterdir()}
    assert {f"lorry/{name}" for name in wanted} <= held


def test_no_value_is_dead() -> None:
    """Each leaf of values.yaml is read by some template."""
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    for path in leaves(yaml.safe_load((CHART / "values.yaml").read_text())):
        assert re.search(rf"\.{path[-1]}\b", templates), ".".join(path)


def leaves(values: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, value in values.items():
        is_ours = isinstance(value, dict) and value and name not in FREE
        found += leaves(value, (*above, name)) if is_ours else [(*above, name)]
    return found


def test_the_release_and_the_chart_are_of_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert chart["version"] == chart["appVersion"] == version[1]
    assert f"lorry/service:{version[1]}" in rendered({})
