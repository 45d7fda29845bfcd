"""The compose file for one workstation: valid, without privileges, and its settings are settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from kit.settings import variable
from lorry.container import PROGRAMS
from lorry.erasure.settings import ErasureSettings
from lorry.settings_page import PROCESSES
from serving.extraction.settings import BaseEngineSettings

FOLDER = Path(__file__).resolve().parents[3] / "deploy"
TEXT = (FOLDER / "compose.yaml").read_text()
NEXT = (FOLDER / "compose.next.yaml").read_text()
EXAMPLE = (FOLDER / "compose.env.example").read_text()
THIRD_PARTIES = {"postgres", "objects"}


def filled_in(text: str = TEXT) -> dict[str, Any]:
    """A file as Compose reads it, with every variable set."""
    return dict(yaml.safe_load(re.sub(r"\$\{\w+(?::-([^}]*)|:\?)\}", lambda found: found[1] or "1.0", text)))


def services() -> dict[str, dict[str, Any]]:
    return {name: each for name, each in filled_in()["services"].items() if name not in THIRD_PARTIES}


def test_the_file_is_what_the_specification_says_and_a_misspelling_is_none() -> None:
    document = filled_in()
    assert set(PyCompose.from_json(json.dumps(document)).service_names()) == set(document["services"])
    document["services"]["gateway"]["enviroment"] = {}
    with pytest.raises(ValueError, match="enviroment"):
        PyCompose.from_json(json.dumps(document))


def test_every_variable_is_in_the_example_and_the_other_way_round() -> None:
    asked = set(re.findall(r"\$\{(\w+)", TEXT)) - {"LORRY_VERSION", "GATEWAY_PORT"}
    assert asked == set(re.findall(r"^(\w+)=", EXAMPLE, re.MULTILINE))


@pytest.mark.parametrize("name", services())
def test_a_service_of_ours_has_no_privileges_and_a_role_of_its_image(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    role = service["environment"].get("LORRY_ROLE", name)
    needs = PROGRAMS[role].needs
    assert service["image"].startswith(
        {None: "lorry/service", "dbos": "lorry/service", "vllm": "lorry/engine", "torch": "lorry/trainer"}[needs]
    )


@pytest.mark.parametrize("name", filled_in()["services"])
def test_nobodys_log_fills_the_disk_and_nobody_gains_privileges(name: str) -> None:
    service = filled_in()["services"][name]
    assert service["logging"] == {"driver": "local", "options": {"max-size": "64m", "max-file": "2"}}
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == ("no" if name in {"migrate", "bucket"} else "unless-stopped")


def test_what_services_are_told_are_settings() -> None:
    known = {variable(name) for settings in PROCESSES.values() for name in settings.model_fields}
    for name, service in services().items():
        unknown = set(service["environment"]) - known
        assert not unknown, f"{name}: {unknown}"


def test_somebody_walks_the_stores_of_whom_the_gateway_is_asked_to_erase() -> None:
    (conductor,) = [each for each in services().values() if each["environment"].get("LORRY_ROLE") == "conductor"]
    assert "profiles" not in conductor
    needed = {variable(name) for name, field in ErasureSettings.model_fields.items() if field.is_required()}
    assert needed | {"LORRY_ENGINE_TOKEN"} <= set(conductor["environment"])


def test_only_the_gateway_is_published_and_on_loopback() -> None:
    published = {name: each["ports"] for name, each in filled_in()["services"].items() if "ports" in each}
    assert published == {"gateway": ["127.0.0.1:8080:8080"]}


def test_a_second_base_has_an_engine_that_gateway_and_worker_are_told_of_and_trainers_find() -> None:
    document = filled_in(NEXT)
    assert set(PyCompose.from_json(json.dumps(document)).service_names()) == set(document["services"])
    for name in ("gateway", "extractor"):
        environment = document["services"][name]["environment"]
        (only,) = environment
        settings = BaseEngineSettings.model_validate({only.removeprefix("LORRY_").lower(): environment[only]})
        assert settings.base_engine_urls == {"1.0": "http://engine-next:8100"}
    engine, first = document["services"]["engine-next"], services()["engine"]
    assert engine["extends"] == {"file": "compose.yaml", "service": "engine"}
    assert set(engine["environment"]) - {"LORRY_ROLE"} < set(first["environment"])
    for name in ("LORRY_ENGINE_ID", "LORRY_ENGINE_ADDRESS"):
        assert engine["environment"][name] != first["environment"][name]
    targets = [[volume.split(":")[1] for volume in each["volumes"]] for each in (engine, first)]
    assert targets[0] == targets[1], "two engines with one cache would be in each other's way"
    assert engine["volumes"][1] != first["volumes"][1]
    assert document["services"]["trainer"]["volumes"] == ["1.0:/bases/1.0:ro"]
    explained = set(re.findall(r"\b(NEXT_\w+)=", NEXT))
    assert explained == set(re.findall(r"\$\{(\w+)", NEXT))
