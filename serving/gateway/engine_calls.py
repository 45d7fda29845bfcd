"""How calls of engines ended, for Prometheus: by default engine and others, never by base, whose names come and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from prometheus_client import CollectorRegistry, Counter

from serving.extraction.engine_client import Ending
from serving.extraction.engines import EngineName


class EngineCalls:
    """Counts one gateway's calls."""

    def __init__(self, collectors: CollectorRegistry) -> None:
        """Create every series at once, so that a rule can tell zero from nothing."""
        self._calls = Counter(
            "lorry_gateway_engine_calls",
            "Chat completions that engines were asked for, by engine (default; other = of a base that has its own) and "
            "ending: answered (of a stream: begun); refused; other_base = the engine serves another base than the "
            "adapter's; failed.",
            ("engine", "ending"),
            registry=collectors,
        )
        for engine in get_args(EngineName):
            for ending in get_args(Ending):
                self._calls.labels(engine, ending)

    def counting(self, engine: EngineName) -> Callable[[Ending], None]:
        """Return what counts a call of this engine that ended."""
        return lambda ending: self._calls.labels(engine, ending).inc()
