"""Every measure that Lorry's processes have, as Prometheus is shown them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from kit.http_metrics import RequestMetrics
from registry.metrics import RegistryMetrics
from serving.gateway.engine_calls import EngineCalls
from serving.gateway.erasure_gauges import ErasureGauges
from serving.jobs.metrics import ExtractionMetrics
from tests.support.engine_metrics import engine_metrics
from training.service.metrics import TrainingMetrics


def exposed_measures() -> str:
    """Return what all of them expose before anything has happened."""
    gateway = CollectorRegistry()
    RequestMetrics(gateway, prefix="lorry_gateway")
    EngineCalls(gateway)
    ErasureGauges(gateway)
    own = (RegistryMetrics, TrainingMetrics, ExtractionMetrics)
    registries = (engine_metrics(), gateway, *(metrics().collectors for metrics in own))
    return "".join(generate_latest(each).decode() for each in registries)
