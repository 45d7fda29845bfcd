from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serving.engine.settings import EngineSettings


def make(**changes: Any) -> EngineSettings:
    values: dict[str, Any] = {
        "base_directory": "/models/base",
        "engine_token": "engine-token",
        "registry_url": "http://127.0.0.1:8200",
        "registry_engine_token": "registry-token",
        "adapter_cache_directory": "/cache",
    }
    return EngineSettings(**(values | changes))


def test_settings_survive_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make(max_loras=2, engine_dtype="bfloat16", engine_arguments="--swap-space 0", attention_backend=None)
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)

    assert EngineSettings() == settings


def test_every_setting_is_described() -> None:
    missing = [name for name, field in EngineSettings.model_fields.items() if not field.description]

    assert missing == []


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("engine_token", "short", "at least 8"),
        ("engine_token", "two words here", "without spaces"),
        ("registry_engine_token", "schlüssel-lang", "ASCII"),
        ("max_lora_rank", 12, "must be one of 1, 8, 16"),
        ("base_name", "v" + "0" * 32 + "\n", "pattern"),
        ("registry_url", "ftp://registry", "pattern"),
        ("engine_port", 0, "greater than or equal to 1"),
        ("engine_device", "tpu", "'cpu' or 'cuda'"),
    ],
)
def test_a_bad_setting_is_refused_by_name(field: str, value: object, reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make(**{field: value})

    assert field in str(caught.value)
    assert reason in str(caught.value)


def test_host_memory_must_hold_at_least_the_slots() -> None:
    with pytest.raises(ValidationError, match=r"max_cpu_loras \(2\) must be at least max_loras \(4\)"):
        make(max_cpu_loras=2)


def test_tokens_are_not_shown_when_settings_are_printed() -> None:
    settings = make(engine_token="very-secret-engine", registry_engine_token="very-secret-registry")

    assert "very-secret" not in repr(settings)


def test_paths_come_back_as_paths() -> None:
    assert make().base_directory == Path("/models/base")


def test_a_lease_outlasts_a_lost_heartbeat() -> None:
    with pytest.raises(ValidationError, match="must be at least twice heartbeat_seconds"):
        make(engine_lease_seconds=5, heartbeat_seconds=3)


def test_an_engine_without_a_name_is_called_after_its_host_and_port() -> None:
    assert make(engine_port=8123).directory_id.endswith(":8123")
    assert make(engine_id="gpu-7").directory_id == "gpu-7"


def test_what_the_directory_shows_holds_no_secret() -> None:
    settings = make()
    assert not {"engine-token", "registry-token"} & set(map(str, settings.facts().values()))


def test_a_step_must_have_a_token_for_every_seat() -> None:
    with pytest.raises(ValidationError, match=r"step_tokens \(8\) must be at least max_num_seqs \(16\)"):
        make(step_tokens=8, max_num_seqs=16)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_loras": 2, "live_slots": 2}, r"live_slots \(2\) must be less than max_loras \(2\)"),
        ({"max_num_seqs": 4, "live_seats": 4}, r"live_seats \(4\) must be less than max_num_seqs \(4\)"),
    ],
)
def test_batch_must_be_left_something(changes: dict[str, int], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        make(**changes)
