"""What the Dockerfile does, done in plain virtual environments: every image starts, and says what it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LACKS = {
    "service": (
        "gateway: LORRY_ENGINE_URL",
        "registry: LORRY_REGISTRY_TOKEN",
        "extraction worker: LORRY_ENGINE_URL",
        "erasure: LORRY_REGISTRY_TOKEN",
        "lorry.schema: LORRY_DATABASE_URL",
    ),
    "trainer": ("training worker: LORRY_REGISTRY_TOKEN",),
    "engine": ("engine: LORRY_BASE_DIRECTORY", "engine: LORRY_REGISTRY_URL"),
}


@pytest.mark.parametrize("image", LACKS)
def test_the_steps_of_an_image_give_an_environment_whose_roles_start(image: str) -> None:
    """Downloads stay out: this environment's packages stand in for what an index or vLLM's image would bring."""
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # pip takes the latter's 0 for "no isolation"
    ended = subprocess.run(
        [ROOT / "scripts" / "image_steps.sh", image, sysconfig.get_path("purelib")],
        env={**os.environ, "PYTHON": sys.executable, **offline},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    for lack in LACKS[image]:
        assert lack in ended.stdout, ended.stdout
    assert "container: LORRY_ROLE" in ended.stdout
