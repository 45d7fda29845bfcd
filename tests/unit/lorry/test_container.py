"""A container says in one line a setting what it lacks, and never runs the wrong process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lorry.container import PROGRAMS, ContainerSettings


def container(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    command = [sys.executable, "-m", "lorry.container", *arguments]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, timeout=120)


def test_without_a_role_it_names_the_setting_and_the_roles() -> None:
    ended = container()
    assert ended.returncode == 2
    assert ended.stderr.startswith("container: LORRY_ROLE: is not set")
    assert all(role in ended.stderr for role in PROGRAMS)


def test_an_unknown_role_is_named() -> None:
    ended = container(LORRY_ROLE="gatway")
    assert (ended.returncode, "LORRY_ROLE" in ended.stderr, "'gatway'" in ended.stderr) == (2, True, True)


@pytest.mark.parametrize(
    ("role", "lacks"),
    [
        ("gateway", {"LORRY_DATABASE_URL", "LORRY_REGISTRY_URL", "LORRY_ENGINE_URL", "LORRY_ENGINE_TOKEN"}),
        ("extractor", {"LORRY_DATABASE_URL", "LORRY_REGISTRY_TOKEN", "LORRY_ENGINE_URL", "LORRY_ENGINE_TOKEN"}),
        ("registry", {"LORRY_DATABASE_URL", "LORRY_REGISTRY_TOKEN"}),
        ("conductor", {"LORRY_DATABASE_URL", "LORRY_REGISTRY_URL", "LORRY_REGISTRY_TOKEN"}),
        ("trainings", {"LORRY_DATABASE_URL", "LORRY_TRAINING_TOKEN"}),
        ("trainer", {"LORRY_DATABASE_URL", "LORRY_REGISTRY_URL", "LORRY_REGISTRY_TOKEN"}),
        ("migrate", {"LORRY_DATABASE_URL"}),
    ],
)
def test_a_role_names_every_setting_that_it_lacks(role: str, lacks: set[str]) -> None:
    ended = container(LORRY_ROLE=role)
    assert ended.returncode == 2
    assert lacks <= {line.split(": ")[1] for line in ended.stderr.splitlines()}


def test_nothing_that_listens_is_not_ready() -> None:
    settings = {
        "LORRY_ROLE": "engine",
        "LORRY_BASE_DIRECTORY": ".",
        "LORRY_ENGINE_TOKEN": "x" * 16,
        "LORRY_ENGINE_PORT": "1",
        "LORRY_REGISTRY_URL": "http://127.0.0.1:1",
        "LORRY_REGISTRY_ENGINE_TOKEN": "x" * 16,
        "LORRY_ADAPTER_CACHE_DIRECTORY": ".",
    }
    probed = container("probe", **settings)
    assert (probed.returncode, probed.stderr) == (1, "container: engine is not ready\n")
    asked = container("ask", "/lorry/ready", **settings)
    assert (asked.returncode, asked.stderr) == (1, "container: the engine did not answer, or said no\n")
    drained = container("drain", "1", **settings)
    assert (drained.returncode, drained.stderr) == (1, "container: the engine did not become empty\n")


def test_an_extraction_worker_is_asked_at_its_own_port() -> None:
    settings = {
        "LORRY_ROLE": "extractor",
        "LORRY_DATABASE_URL": "postgresql+asyncpg://nobody@127.0.0.1:1/none",
        "LORRY_REGISTRY_URL": "http://127.0.0.1:1",
        "LORRY_REGISTRY_TOKEN": "x" * 16,
        "LORRY_ENGINE_URL": "http://127.0.0.1:1",
        "LORRY_ENGINE_TOKEN": "x" * 16,
        "LORRY_EXTRACTION_WORKER_PORT": "1",
    }
    probed = container("probe", **settings)
    assert (probed.returncode, probed.stderr) == (1, "container: extractor is not ready\n")


def test_a_conductor_that_does_not_reach_its_database_is_not_ready() -> None:
    settings = {
        "LORRY_ROLE": "conductor",
        "LORRY_DATABASE_URL": "postgresql+asyncpg://nobody@127.0.0.1:1/none",
        "LORRY_REGISTRY_URL": "http://127.0.0.1:1",
        "LORRY_REGISTRY_TOKEN": "x" * 16,
    }
    probed = container("probe", **settings)
    assert (probed.returncode, probed.stderr) == (1, "container: conductor is not ready\n")


def test_only_engines_are_drained_for_a_time_that_they_take_and_asked_for_what_is_theirs() -> None:
    assert "only an engine is drained" in container("drain", "1", LORRY_ROLE="gateway").stderr
    assert "only an engine is drained or asked" in container("ask", "/lorry/ready", LORRY_ROLE="registry").stderr
    assert "is not a path below /lorry/" in container("ask", "/v1/models", LORRY_ROLE="engine").stderr
    assert "whole number from 0 to 600" in container("drain", "601", LORRY_ROLE="engine").stderr


def test_every_role_has_a_program() -> None:
    assert set(ContainerSettings.model_fields["role"].annotation.__args__) == set(PROGRAMS)  # type: ignore[union-attr]
