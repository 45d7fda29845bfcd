"""The entry point of ``vllm.endpoint_plugins``: connects the parts in the API server.

vLLM calls `attach_router` while it builds its app, `init_state` once the engine runs, and the app's lifespan
last; requests come after that.
"""

from __future__ import annotations

import asyncio
import logging
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from prometheus_client import REGISTRY
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.lora.resolver import LoRAResolverRegistry
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from kit.background import Errands
from kit.problems import problem
from kit.telemetry import configure_logging
from registry.client import RegistryClient, Verifier
from registry.client.engines import Presence
from serving.engine.api import Api
from serving.engine.directory import NAME, Directory
from serving.engine.door import Admittance, Door
from serving.engine.guard import Guard
from serving.engine.installer import Installer
from serving.engine.launch import TARGET_MODULES
from serving.engine.loader import AdapterLoader
from serving.engine.lora_gauge import remove_lora_gauge
from serving.engine.metrics import EngineMetrics
from serving.engine.pool.observer import Observer
from serving.engine.pool.pool import AdapterPool
from serving.engine.pool.tier import Tier
from serving.engine.pool_gauges import show_pool
from serving.engine.priority import Priority
from serving.engine.quiet import leave_out_refusals
from serving.engine.replacement import replace_lost
from serving.engine.residents import Residents
from serving.engine.resolver import RESOLVER_NAME, RegistryResolver
from serving.engine.sequences import watch_sequences
from serving.engine.settings import EngineSettings, process_settings
from serving.engine.source import AdapterSource, Fit, identify_base
from serving.engine.steward import Steward
from serving.engine.stopping import before_shutdown
from serving.engine.store import EngineStore
from serving.engine.warm_start import Usage, WarmStart
from serving.engine.worker.link import Activation, WorkerLink
from serving.errors import EngineDraining, EngineMisconfigured

_log = logging.getLogger(__name__)


class LorryRoutes:
    """Our endpoint plugin, as vLLM's `EndpointPlugin` protocol wants it."""

    name = "lorry_routes"
    required_tasks = ("generate",)

    def __init__(self, settings: EngineSettings | None = None) -> None:
        """Build the registry's client; `settings` are this process's when None, which is how vLLM builds it."""
        self._settings = settings or process_settings()
        self._registry = RegistryClient(
            url=self._settings.registry_url,
            token=self._settings.registry_engine_token.get_secret_value(),
            actor=self._settings.directory_id,
            timeout_seconds=self._settings.registry_timeout_seconds,
        )
        self._app: FastAPI | None = None
        self._engine: AsyncLLM | None = None
        self._models: OpenAIServingModels | None = None
        self._directory: Directory | None = None
        self._link: WorkerLink | None = None
        self._pool: AdapterPool | None = None
        self._steward: Steward | None = None
        self._warm_start: WarmStart | None = None
        self._api = Api(ready=self.ready)
        self._errands = Errands(of=NAME)

    def attach_router(self, app: FastAPI) -> None:
        """Add our routes, and the registry's client to the app's lifespan."""
        self._app = app
        app.include_router(self._api.router())
        app.router.lifespan_context = self._lifespan(app.router.lifespan_context)

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        """Connect registry, disk, resolver and engine; the server does not start when this raises.

        Raises:
            EngineMisconfigured: more than one API server or data-parallel rank, something in front of the guard, or a
                missing door or resolver.
            BaseModelUnreadable: naming the file that the base model lacks.
        """
        if not isinstance(engine_client, AsyncLLM):
            raise EngineMisconfigured("Lorry's routes need vLLM's asynchronous engine in this process.")
        configure_logging(self._settings.log_level)
        leave_out_refusals()
        self._refuse_unguarded()
        refuse_several(engine_client)
        remove_lora_gauge(engine_client, REGISTRY)
        self._engine, self._models = engine_client, state.openai_serving_models
        resolver = _registered_resolver(state.openai_serving_models)
        metrics = EngineMetrics(REGISTRY)
        installer = self._installer(metrics)
        fit = await _fit(self._settings)
        self._directory = Directory(
            self._registry, settings=self._settings, base=fit.base, installer=installer, metrics=metrics
        )
        source = self._source(installer, fit, metrics, presence=self._directory.presence)
        resolver.connect(source)
        await self._connect_pool(
            engine_client,
            state,
            source=source,
            installer=installer,
            directory=self._directory,
            metrics=metrics,
        )
        _log.info("adapters are served from the registry, as engine %s", self._settings.directory_id)

    async def _connect_pool(
        self,
        engine: AsyncLLM,
        state: State,
        *,
        source: AdapterSource,
        installer: Installer,
        directory: Directory,
        metrics: EngineMetrics,
    ) -> None:
        models = state.openai_serving_models
        residents = Residents(models, engine=engine, gate=directory.require, counted=metrics)
        self._link = WorkerLink(
            engine.collective_rpc,
            on_activated=lambda activation: self._note_activation(activation, metrics),
            on_lost=lambda version_id: self._replace(version_id, store, residents),
        )
        await self._link.open(self._settings.adapter_cache_directory / ".signals")
        store = EngineStore(
            source,
            link=self._link,
            models=models,
            gate=directory.require,
            arriving=residents.arriving,
            metrics=metrics,
        )
        usage = Usage(self._settings.adapter_cache_directory)
        installer.on_removed(usage.forget)
        self._pool = _pool(store, self._settings, observer=metrics, on_used=usage.note)
        watch_sequences(engine)
        residents.take_over(self._pool)
        in_slots = self._pool.in_slots
        directory.connect(residents, in_slots=lambda: in_slots.filled, on_retired=usage.forget)
        AdapterLoader(models, pool=self._pool, on_refused=metrics.refused).take_over()
        admittance = Admittance(
            pool=self._pool,
            most_tokens=self._settings.max_model_len,
            deadline_seconds={
                "live": self._settings.live_deadline_seconds,
                "batch": self._settings.batch_deadline_seconds,
            },
            gate=directory.require,
            on_refused=metrics.refused,
        )
        state.lorry_admittance = admittance
        before_shutdown(
            engine,
            lambda: admittance.stop(EngineDraining(retry_after_seconds=1)),
            let_end=admittance.crowd.wait_until_empty,
            seconds=self._settings.engine_stop_seconds,
        )
        self._steward = Steward(
            self._pool,
            disk=installer,
            eraser=directory.eraser,
            crowd=admittance.crowd,
            slots=self._settings.max_loras,
        )
        self._api.steward, self._api.ledger = self._steward, metrics.ledger
        show_pool(metrics, self._pool, self._steward)
        if self._settings.warm_start:
            self._warm_start = _warm_start(usage, pool=self._pool, directory=directory, settings=self._settings)

    def _note_activation(self, activation: Activation, metrics: EngineMetrics) -> None:
        if activation.rank == 0:  # every rank does the same at the same time
            metrics.activated(activation.seconds)
            if self._pool is not None:
                self._pool.activated(activation.version_id, activation.slot)

    def _replace(self, version_id: str, store: EngineStore, residents: Residents) -> None:
        """End the requests that a step answered without their weights, and load those anew."""
        replacing = replace_lost(version_id, store=store, residents=residents)
        self._errands.start(replacing, doing=f"replacing {version_id}")

    async def ready(self) -> JSONResponse:
        """Answer 200 when adapters are served and the engine lives, else 503 with the reason."""
        if self._engine is None or self._models is None or self._directory is None:
            return _not_ready("The engine is still starting.")
        resolvers = self._models.lora_resolvers
        if not any(isinstance(resolver, RegistryResolver) and resolver.connected for resolver in resolvers):
            return _not_ready("The registry's resolver is not connected.")
        if (closed := self._directory.closed_because()) is not None:
            return _not_ready(closed.message)
        if self._steward is None or self._steward.draining:
            return _not_ready("The engine is being drained.")
        try:
            await self._engine.check_health()
        except EngineDeadError:
            return _not_ready("The engine core is dead.")
        return JSONResponse({"status": "ready", "base": self._settings.base_name})

    def _installer(self, metrics: EngineMetrics) -> Installer:
        settings = self._settings
        installer = Installer(
            settings.adapter_cache_directory,
            metrics=metrics,
            lock_seconds=settings.adapter_lock_seconds,
            max_bytes=int(settings.adapter_cache_gib * (1 << 30)),
        )
        installer.open()
        return installer

    def _source(self, installer: Installer, fit: Fit, metrics: EngineMetrics, *, presence: Presence) -> AdapterSource:
        seconds = self._settings.refusal_ttl_seconds
        public_key = self._settings.signing_public_key_file
        return AdapterSource(
            self._registry,
            installer=installer,
            fit=fit,
            metrics=metrics,
            refusal_ttl_seconds=seconds,
            silence_seconds=self._settings.registry_timeout_seconds,
            verifier=Verifier.open(public_key) if public_key else None,
            presence=presence,
        )

    def _lifespan(self, inner: Any) -> Any:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
            async with self._registry, inner(app) as state, self._in_touch():
                yield state

        return lifespan

    @asynccontextmanager
    async def _in_touch(self) -> AsyncIterator[None]:
        """Keep the directory's heartbeat going while the server runs."""
        if self._directory is None:
            raise EngineMisconfigured("vLLM began to serve before Lorry's routes were connected.")
        running = self._errands.start(self._directory.run(), doing="keeping in touch with the registry")
        try:
            async with self._warm_start.running() if self._warm_start is not None else nullcontext():
                yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self._directory.leave()
            if self._steward is not None:
                await self._steward.close()
            if self._link is not None:
                self._link.close()
            _log.info("stopped as asked; what vLLM and its libraries warn of from here on is how they end")

    def _refuse_unguarded(self) -> None:
        in_front = [] if self._app is None else [middleware.cls for middleware in self._app.user_middleware]
        if in_front[: len(_IN_FRONT)] != _IN_FRONT:
            raise EngineMisconfigured(
                "Lorry's guard, door and priority are not in front of all else, in this order: start serving.engine."
            )


_IN_FRONT: list[object] = [Guard, Door, Priority]
"""What a request passes before anything else, the outermost first."""

_ARRIVALS = 8
"""Adapters on their way from the registry at once: two for each thread that downloads."""


def _pool(
    store: EngineStore, settings: EngineSettings, *, observer: Observer, on_used: Callable[[str], None]
) -> AdapterPool:
    limits = settings.limits()
    pinned, entries = _host_places(settings)
    host = Tier(
        "host memory",
        max_bytes=int(settings.host_adapter_gib * (1 << 30)),
        max_entries=settings.max_cpu_loras,
        max_pinned=pinned,
    )
    return AdapterPool(
        store,
        limits=limits,
        host=host,
        host_entries=entries,
        host_live_entries=limits.live_slots,
        arrivals=max(1, min(_ARRIVALS, entries - limits.slots)),
        observer=observer,
        on_used=on_used,
    )


def _host_places(settings: EngineSettings) -> tuple[int, int]:
    """Return how many adapters in host memory may be pinned, and how many may be used at once besides."""
    pinned = (settings.max_cpu_loras - settings.max_loras) // 2
    return pinned, settings.max_cpu_loras - pinned


def _warm_start(usage: Usage, *, pool: AdapterPool, directory: Directory, settings: EngineSettings) -> WarmStart:
    return WarmStart(
        usage,
        pool=pool,
        is_open=lambda: directory.closed_because() is None,
        max_entries=_host_places(settings)[1],
    )


async def _fit(settings: EngineSettings) -> Fit:
    base = await identify_base(settings.base_directory, name=settings.base_name)
    return Fit(
        base=base,
        max_rank=settings.max_lora_rank,
        target_modules=frozenset(TARGET_MODULES),
    )


def refuse_several(engine: AsyncLLM) -> None:
    """Refuse an engine of which this is not the only API server, or whose adapters are not whole in every worker.

    Raises:
        EngineMisconfigured: saying which, however vLLM was told.
    """
    parallel = engine.vllm_config.parallel_config
    if parallel.data_parallel_size > 1:
        raise EngineMisconfigured("Data parallelism is refused: an idle rank's dummy batches wipe its adapters.")
    if parallel._api_process_count > 1:
        raise EngineMisconfigured("More than one API server is refused: adapters are known to one only.")
    if parallel.pipeline_parallel_size > 1 or parallel.nnodes > 1:
        raise EngineMisconfigured("Pipelines and several nodes are refused: every worker holds whole adapters, here.")


def _registered_resolver(models: OpenAIServingModels) -> RegistryResolver:
    if RESOLVER_NAME not in LoRAResolverRegistry.get_supported_resolvers():
        raise EngineMisconfigured("The plugin `lorry` is not loaded: start serving.engine.")
    resolver = LoRAResolverRegistry.get_resolver(RESOLVER_NAME)
    if not isinstance(resolver, RegistryResolver) or models.lora_resolvers != [resolver]:
        raise EngineMisconfigured("Other adapter resolvers than Lorry's are loaded: start serving.engine.")
    return resolver


def _not_ready(reason: str) -> JSONResponse:
    headers = {"retry-after": "1"}
    return problem(503, code="engine-not-ready", title="The engine is not ready.", detail=reason, headers=headers)
