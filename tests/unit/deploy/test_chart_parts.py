"""What each part of the chart is told, who may call it, and how long it may take to stop."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from lorry.cli import app
from lorry.home import Home
from lorry.local.plan import Plan
from lorry.settings import LorrySettings
from tests.support.chart import environment, objects, of_kind, pods
from tests.support.gateway_routes import WITHOUT_KEY
from tests.support.helm import CHART, helm, render

VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module", autouse=True)
def _helm() -> None:
    helm()


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


@pytest.mark.parametrize(
    ("size", "gib"), [("100Gi", 90), ("1.5Ti", 1382.4), ("500G", 419.095), ("1000000000000", 838.19), ("2048Mi", 1.8)]
)
def test_an_engines_adapters_leave_room_on_their_volume(size: str, gib: float) -> None:
    found = pods(render({"engines": {"cache": {"size": size}}, "otherEngines": {"next": {"path": "next"}}}))
    for part in ("lorry-engine", "lorry-engine-next"):
        assert float(environment(found[part])["LORRY_ADAPTER_CACHE_GIB"]) == pytest.approx(gib, rel=1e-4)


def test_gpus_have_their_runtime_and_serving_goes_before_training() -> None:
    given = {"runtimeClassName": "nvidia", "priorityClassName": "serving"}
    values: dict[str, Any] = {"engines": given, "trainers": {**given, "priorityClassName": "training"}}
    found = pods(render({**values, "otherEngines": {"next": {"path": "next", "priorityClassName": "moving"}}}))
    classes = {part: (pod.get("runtimeClassName"), pod.get("priorityClassName")) for part, pod in found.items()}
    assert classes["lorry-engine"] == ("nvidia", "serving")
    assert classes["lorry-engine-next"] == ("nvidia", "moving")
    assert classes["lorry-trainer"] == ("nvidia", "training")
    assert classes["lorry-gateway"] == (None, None)


def test_images_may_be_pinned_by_what_they_are() -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    found = pods(render({"image": {"digests": {"engine": digest}, "registry": "localhost:5000"}}))
    images = {part: pod["containers"][0]["image"] for part, pod in found.items()}
    assert images["lorry-engine"].endswith(f":{VERSION}@{digest}")
    assert images["lorry-trainer"] == f"localhost:5000/lorry/trainer:{VERSION}"


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


def test_one_engine_a_base_is_asked_directly_without_envoy() -> None:
    told = environment(pods(objects("two bases without Envoy"))["lorry-gateway"])
    assert told["LORRY_ENGINE_URL"] == "http://lorry-engine.users:8100"
    assert json.loads(told["LORRY_BASE_ENGINE_URLS"]) == {"next": "http://lorry-engine-next.users:8100"}
    assert "LORRY_BASE_ENGINE_URLS" not in environment(pods(objects("defaults"))["lorry-gateway"])


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


def test_what_nothing_else_lets_go_of_is_let_go_each_night() -> None:
    found = objects("defaults")
    (container,) = pods(found)["lorry-upkeep"]["containers"]
    command: Any = typer.main.get_command(app)
    for words in re.findall(r"lorry (registry \w+)", container["command"][-1]):
        group, name = words.split()
        assert name in command.commands[group].commands
    told = {each["name"].removeprefix("LORRY_").lower(): each.get("value", "given") for each in container["env"]}
    settings = LorrySettings.model_validate({**told, "database_url": "postgresql+asyncpg://x/x"})
    local = Plan(settings=settings, home=Home(path=Path("nowhere"))).local_parts
    assert not {"postgres", "seaweedfs", "registry"} & set(local), "it would start its own"
    callers = of_kind(found, "NetworkPolicy")["lorry-registry"]["spec"]["ingress"][0]["from"]
    assert "upkeep" in [each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in callers]
