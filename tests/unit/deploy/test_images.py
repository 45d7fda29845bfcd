"""The Dockerfile: lint, pins, and that no image runs as root or leaves out its health check."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

from serving.engine.vllm_version import SUPPORTED

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / "deploy" / "images" / "Dockerfile"
TEXT = DOCKERFILE.read_text()
FINAL = ("service", "trainer", "engine")
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"


def stage(name: str) -> str:
    """The lines of one stage."""
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, name
    return found[1]


def lint(text: str) -> str:
    return subprocess.run([HADOLINT, "--no-color", "-"], input=text, text=True, capture_output=True).stdout


def test_the_linter_finds_nothing() -> None:
    assert lint(TEXT) == ""
    assert "DL3006" in lint("FROM debian\n")


def test_every_base_image_is_pinned_by_version() -> None:
    bases = dict(re.findall(r"^ARG (\w+)=(\S+)$", TEXT, re.MULTILINE))
    assert set(re.findall(r"^FROM \$\{(\w+)\}", TEXT, re.MULTILINE)) == set(bases)
    for base in bases.values():
        assert re.search(r":v?\d+\.\d+\.\d+", base), base
    assert re.search(r"vllm-openai:v(\d+\.\d+)\.", bases["VLLM_IMAGE"])[1] in SUPPORTED  # type: ignore[index]


def test_what_builds_the_wheel_is_pinned() -> None:
    """pip builds in an environment of its own, and takes the newest of everything unless its variables say else."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert {re.split(r"[^\w-]", each)[0] for each in needed} <= pinned
    wheel = re.search(
        r"^wheel\)\n(.*?)^ {4};;", (ROOT / "deploy/images/steps.sh").read_text(), re.DOTALL | re.MULTILINE
    )
    assert wheel is not None
    before, told, after = wheel[1].partition('export PIP_CONSTRAINT="$PWD/constraints.txt" PIP_BUILD_CONSTRAINT=')
    assert told
    assert "pip wheel" in after
    assert "pip " not in before.replace("of pip", "")


@pytest.mark.parametrize("name", FINAL)
def test_an_image_runs_as_a_user_without_rights_and_can_be_probed(name: str) -> None:
    lines = stage(name)
    assert re.search(r"^USER 10001:10001$", lines, re.MULTILINE)
    assert re.search(r'^HEALTHCHECK .*"lorry.container", "probe"\]$', lines, re.MULTILINE)
    assert lines.rstrip().endswith('"-m", "lorry.container"]')
    assert not re.search(r"^RUN", lines[lines.index("USER") :], re.MULTILINE)


def test_only_what_is_copied_reaches_the_builder() -> None:
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {word for line in re.findall(r"^COPY (?!--)(.*) \S+$", TEXT, re.MULTILINE) for word in line.split()}
    assert copied == allowed
    rooms = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    )
    assert rooms <= copied


def test_the_scripts_are_sound() -> None:
    for script in (ROOT / "deploy" / "images" / "steps.sh", ROOT / "scripts" / "image_steps.sh"):
        subprocess.run(["bash", "-n", script], check=True)
