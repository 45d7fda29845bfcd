from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from kit.problems import problem
from registry.client import RegistryClient
from registry.errors import BaseModelMismatch, NotServable, RegistryError, RegistryUnavailable, VersionNotFound
from registry.manifest import BaseIdentity
from serving.engine.installer import Installer
from serving.engine.metrics import EngineMetrics
from serving.engine.source import AdapterSource, Fit
from serving.errors import AdapterUnfit, RegistryRefusedEngine

ID = "v" + "1" * 32
DIGEST = "0" * 64
BASE = {
    "id": "base",
    "config_sha256": DIGEST,
    "weights_sha256": DIGEST,
    "tokenizer_sha256": DIGEST,
    "chat_template_sha256": DIGEST,
}


def resolution(**changes: Any) -> dict[str, Any]:
    content = b"x"
    file = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {
        "owner": {"tenant": "acme", "user": "ada"},
        "version": 1,
        "base": BASE,
        "lora": {"rank": 16, "alpha": 32, "target_modules": ["q_proj"]},
        "files": [{"path": "adapter_config.json", **file}, {"path": "adapter_model.safetensors", **file}],
        "version_id": ID,
        "created_at": "2026-01-01T00:00:00Z",
    }
    return {"manifest": manifest | changes}


class Answers:
    """A registry that answers every call alike, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.response: Callable[[], httpx.Response] = lambda: httpx.Response(200, json=resolution())

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        assert request.headers["authorization"] == "Bearer registry-token"
        return self.response()

    def refuse(self, status: int, code: str) -> None:
        body = json.loads(bytes(problem(status, code=code, title="No.", detail="because").body))
        self.response = lambda: httpx.Response(status, json=body)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def metrics() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def source(tmp_path: Path, answers: Answers, metrics: CollectorRegistry) -> AsyncIterator[AdapterSource]:
    engine_metrics = EngineMetrics(metrics)
    installer = Installer(tmp_path, metrics=engine_metrics, lock_seconds=1)
    installer.open()
    transport = httpx.MockTransport(answers)
    async with RegistryClient(url="http://registry", token="registry-token", transport=transport) as registry:
        yield AdapterSource(
            registry,
            installer=installer,
            fit=Fit(
                base=BaseIdentity.model_validate(BASE),
                base_directory=tmp_path,
                max_rank=16,
                target_modules=frozenset({"q_proj"}),
            ),
            metrics=engine_metrics,
            refusal_ttl_seconds=0.2,
        )


@pytest.mark.parametrize(
    ("status", "code", "error", "reason"),
    [
        (404, "version-not-found", VersionNotFound, "unknown_version"),
        (409, "not-servable", NotServable, "not_servable"),
        (503, "database-unavailable", RegistryUnavailable, "registry_unavailable"),
        (401, "unauthorized", RegistryRefusedEngine, "registry_refused"),
    ],
)
async def test_the_registrys_refusals_keep_their_meaning(
    source: AdapterSource,
    answers: Answers,
    metrics: CollectorRegistry,
    status: int,
    code: str,
    error: type[RegistryError],
    reason: str,
) -> None:
    answers.refuse(status, code)
    with pytest.raises(error):
        await source.install(ID)

    assert metrics.get_sample_value("lorry_adapter_load_failures_total", {"reason": reason}) == 1


def test_a_wrong_engine_token_is_not_the_callers_fault() -> None:
    assert RegistryRefusedEngine.status_code == 503


async def test_an_adapter_of_another_base_is_refused_and_the_difference_named(
    source: AdapterSource, answers: Answers, tmp_path: Path
) -> None:
    other = BASE | {"weights_sha256": "1" * 64}
    answers.response = lambda: httpx.Response(200, json=resolution(base=other))
    with pytest.raises(BaseModelMismatch, match="weights_sha256 differ"):
        await source.install(ID)

    assert [path.name for path in tmp_path.iterdir()] == [".staging"]


@pytest.mark.parametrize(
    ("lora", "reason"),
    [
        ({"rank": 32, "alpha": 32, "target_modules": ["q_proj"]}, "rank is 32; this engine serves up to 16"),
        ({"rank": 8, "alpha": 32, "target_modules": ["lm_head"]}, "layers that are not served: lm_head"),
    ],
)
async def test_an_adapter_that_does_not_fit_the_slots_is_refused(
    source: AdapterSource, answers: Answers, lora: dict[str, Any], reason: str
) -> None:
    answers.response = lambda: httpx.Response(200, json=resolution(lora=lora))
    with pytest.raises(AdapterUnfit, match=reason):
        await source.install(ID)


async def test_an_answer_about_another_version_is_refused(source: AdapterSource, answers: Answers) -> None:
    answers.response = lambda: httpx.Response(200, json=resolution(version_id="v" + "2" * 32))
    with pytest.raises(Exception, match="another version than the one asked for"):
        await source.install(ID)


async def test_a_crowd_that_asks_for_what_cannot_be_had_costs_one_call(source: AdapterSource, answers: Answers) -> None:
    answers.refuse(404, "version-not-found")
    for _ in range(50):
        with pytest.raises(VersionNotFound):
            await source.install(ID)

    assert answers.calls == 1


async def test_a_refusal_is_forgotten_and_does_not_touch_other_versions(
    source: AdapterSource, answers: Answers
) -> None:
    answers.refuse(404, "version-not-found")
    for version_id in (ID, "v" + "2" * 32, ID):
        with pytest.raises(VersionNotFound):
            await source.install(version_id)
    assert answers.calls == 2

    await asyncio.sleep(0.25)
    with pytest.raises(VersionNotFound):
        await source.install(ID)
    assert answers.calls == 3
