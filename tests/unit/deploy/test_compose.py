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

FOLDER = Path(__file__).resolve().parents[3] / "deploy"
TEXT = (FOLDER / "compose.yaml").read_text()
EXAMPLE = (FOLDER / "compose.env.example").read_text()
THIRD_PARTIES = {"postgres", "objects"}


def filled_in() -> dict[str, Any]:
    """The file as Compose reads it, with every variable set."""
    return dict(yaml.safe_load(re.sub(r"\$\{\w+(?::-([^}]*)|:\?)\}", lambda found: found[1] or "1.0", TEXT)))


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
