from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from registry.errors import DigestMismatch, RegistryUnavailable
from serving.engine.metrics import EngineMetrics, reason_of


def test_every_series_exists_before_the_first_load() -> None:
    registry = CollectorRegistry()
    EngineMetrics(registry)
    text = generate_latest(registry).decode()

    for stage in ("resolve", "download", "verify", "install", "check", "engine_load"):
        assert f'lorry_adapter_load_seconds_count{{stage="{stage}"}} 0.0' in text
    assert 'lorry_adapter_loads_total{outcome="loaded"} 0.0' in text
    assert 'lorry_adapter_load_failures_total{reason="disk_full"} 0.0' in text


def test_a_stage_that_fails_is_timed_as_well() -> None:
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry)
    with pytest.raises(RuntimeError), metrics.stage("download"):
        raise RuntimeError

    assert registry.get_sample_value("lorry_adapter_load_seconds_count", {"stage": "download"}) == 1


def test_failures_are_counted_under_their_reason() -> None:
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry)
    metrics.failed(RegistryUnavailable())

    assert registry.get_sample_value("lorry_adapter_loads_total", {"outcome": "failed"}) == 1
    assert registry.get_sample_value("lorry_adapter_load_failures_total", {"reason": "registry_unavailable"}) == 1


def test_an_error_takes_the_reason_of_its_nearest_known_class_and_a_stranger_is_other() -> None:
    assert reason_of(DigestMismatch()) == "damaged"
    assert reason_of(OSError()) == "other"
