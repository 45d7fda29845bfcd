from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kit.errors import RequestTooLarge
from registry.errors import DigestMismatch, NotServable, RegistryUnavailable, VersionNotFound
from serving.engine.ledger import LoadRecord
from serving.engine.metrics import EngineMetrics, reason_of
from serving.errors import EngineBusy, TierFull, TooManySequences

ADA = "v" + "a" * 32


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> EngineMetrics:
    return EngineMetrics(registry)


def loads(registry: CollectorRegistry) -> tuple[float | None, float | None]:
    return tuple(  # type: ignore[return-value]
        registry.get_sample_value("lorry_adapter_loads_total", {"outcome": outcome}) for outcome in ("loaded", "failed")
    )


def observed(registry: CollectorRegistry, stage: str, source: str) -> float | None:
    return registry.get_sample_value("lorry_adapter_load_seconds_count", {"stage": stage, "source": source})


def test_every_series_exists_before_the_first_load(registry: CollectorRegistry, metrics: EngineMetrics) -> None:
    text = generate_latest(registry).decode()

    for stage in ("resolve", "download", "open", "engine_load", "queue", "read", "prepare"):
        for source in ("registry", "disk"):
            assert f'lorry_adapter_load_seconds_count{{source="{source}",stage="{stage}"}} 0.0' in text
    for line in (
        'lorry_adapter_loads_total{outcome="loaded"}',
        'lorry_adapter_load_failures_total{reason="disk_full"}',
        'lorry_adapter_refusals_total{reason="deadline"}',
        'lorry_adapter_requests_total{class="batch",tier="slot"}',
        'lorry_adapter_evictions_total{reason="superseded",tier="host"}',
        'lorry_slot_wait_seconds_count{class="live"}',
    ):
        assert f"{line} 0.0" in text


def test_a_stage_that_fails_is_timed_as_well(registry: CollectorRegistry, metrics: EngineMetrics) -> None:
    with pytest.raises(RuntimeError), metrics.stage("download"):
        raise RuntimeError

    assert observed(registry, "download", "registry") == 1


def test_failures_are_counted_under_their_reason(registry: CollectorRegistry, metrics: EngineMetrics) -> None:
    metrics.failed(RegistryUnavailable())

    assert loads(registry) == (0, 1)
    assert registry.get_sample_value("lorry_adapter_load_failures_total", {"reason": "registry_unavailable"}) == 1


async def test_a_load_is_counted_once_with_all_its_stages_under_where_its_bytes_came_from(
    registry: CollectorRegistry, metrics: EngineMetrics
) -> None:
    async def fetch(stage: str) -> None:
        with metrics.stage(stage):  # type: ignore[arg-type]
            await asyncio.sleep(0)

    for stages, source in ((("resolve", "download"), "registry"), (("resolve", "open"), "disk")):
        with metrics.loading(ADA) as load:
            await asyncio.gather(*(asyncio.create_task(fetch(stage)) for stage in stages))
            metrics.worker_stages({"read": 0.1, "unheard-of": 1.0})
            metrics.loaded()
        assert load.source == source
        for stage in (*stages, "read"):
            assert observed(registry, stage, source) == 1
    assert loads(registry) == (2, 0)


def test_a_load_that_fails_is_counted_once_and_a_refusal_before_any_work_is_none(
    registry: CollectorRegistry, metrics: EngineMetrics
) -> None:
    with pytest.raises(TierFull), metrics.loading(ADA) as load:
        _fail(metrics, load)
    with pytest.raises(NotServable), metrics.loading(ADA):
        raise NotServable
    assert loads(registry) == (0, 1)
    assert [(each["version_id"], each["failures"], each["reason"]) for each in metrics.ledger.failing()] == [
        (ADA, 1, "no_room")
    ]


def _fail(metrics: EngineMetrics, load: LoadRecord) -> None:
    load.add("resolve", 0.1)
    metrics.failed(TierFull())
    raise TierFull


def test_a_made_up_name_is_a_failed_load_but_no_failing_adapter(
    registry: CollectorRegistry, metrics: EngineMetrics
) -> None:
    with pytest.raises(VersionNotFound), metrics.loading(ADA), metrics.stage("resolve"):
        raise VersionNotFound
    assert (loads(registry), metrics.ledger.failing()) == ((0, 1), [])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DigestMismatch(), "damaged"),
        (OSError(), "other"),
        (EngineBusy(), "busy"),
        (TooManySequences(), "invalid"),
        (RequestTooLarge(), "invalid"),
        (NotServable(), "not_servable"),
        (NotServable("because", reason="suspended"), "suspended"),
        (NotServable("because", reason="a word of tomorrow"), "not_servable"),
    ],
)
def test_an_error_takes_the_reason_of_its_nearest_known_class_and_a_stranger_is_other(
    error: Exception, reason: str
) -> None:
    assert reason_of(error) == reason


def test_gauges_are_read_when_somebody_looks(registry: CollectorRegistry, metrics: EngineMetrics) -> None:
    held = [1]
    metrics.show("lorry_adapters", "…", {"host": lambda: len(held)}, label="tier")
    held.append(2)
    assert registry.get_sample_value("lorry_adapters", {"tier": "host"}) == 2
