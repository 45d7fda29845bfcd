"""Engines that are away, as one worker sees them: nobody is sent to one until it answers its health check again."""

from __future__ import annotations

from kit.together import all_of
from registry.manifest import Manifest
from serving.errors import EngineUnavailable
from serving.extraction.engine_client import EngineClient
from serving.extraction.engines import Engines
from serving.jobs.metrics import ExtractionMetrics


class Outages:
    """What is known of each engine. The users of one base wait for theirs; those of the others go on."""

    def __init__(self, engines: Engines, *, metrics: ExtractionMetrics) -> None:
        self._engines = engines
        self._metrics = metrics
        self._away: set[EngineClient] = set()

    @property
    def is_total(self) -> bool:
        """Whether no engine is left that anybody could be sent to."""
        return len(self._away) == len(self._engines.all)

    def engine_for(self, manifest: Manifest) -> EngineClient:
        """Return the engine of a version, whether or not it is away."""
        return self._engines.of(manifest)

    def require(self, engine: EngineClient) -> None:
        """Return when an engine is not known to be away.

        Raises:
            EngineUnavailable: when it is.
        """
        if engine in self._away:
            raise EngineUnavailable

    async def answers(self, engine: EngineClient) -> bool:
        """Say whether an engine answers, by asking one that is not known to be away."""
        if engine not in self._away and not await engine.is_healthy():
            self._away.add(engine)
            self._show()
        return engine not in self._away

    async def look_again(self) -> None:
        """Ask every engine that was away whether it is back."""
        asked = tuple(self._away)
        answers = await all_of(engine.is_healthy() for engine in asked)
        self._away -= {engine for engine, is_back in zip(asked, answers, strict=True) if is_back}
        self._show()

    def _show(self) -> None:
        self._metrics.set_engines_away({self._engines.name(engine) for engine in self._away})
