"""vLLM's metric that names adapters, taken out: ``/metrics`` needs no token, and a label must not hold a version.

`vllm:lora_requests_info` gets one more series for every combination of adapters that ever ran or waited together
(vllm/v1/metrics/loggers.py), so it also grows without bound.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import PrometheusStatLogger

from serving.errors import EngineMisconfigured


def remove_lora_gauge(engine: AsyncLLM, registry: CollectorRegistry) -> None:
    """Take the gauge out of `registry`, and have nobody set it any more.

    Raises:
        EngineMisconfigured: when this vLLM keeps it elsewhere.
    """
    if engine.logger_manager is None:  # it was told to count nothing
        return
    for logger in engine.logger_manager.stat_loggers:
        if not isinstance(logger, PrometheusStatLogger):
            continue
        if not hasattr(logger, "gauge_lora_info"):
            raise EngineMisconfigured("This version of vLLM keeps its metric of adapters where Lorry does not know it.")
        if logger.gauge_lora_info is not None:
            registry.unregister(logger.gauge_lora_info)
            logger.gauge_lora_info = None
