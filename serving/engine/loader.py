"""The last step of a load: from files on disk to an adapter that requests can name.

vLLM's own `OpenAIServingModels.resolve_lora` answers every failure of this step with the same 400 without
a reason, swallows cancellation, measures nothing, and keeps one lock for every name ever asked. `AdapterLoader`
takes its place on vLLM's instance; the seam is private, so a contract test watches it.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import GracefulHTTPError
from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError

from serving.engine.metrics import EngineMetrics
from serving.engine.residents import Residents
from serving.engine.resolver import RegistryResolver, is_version_id
from serving.engine.single_flight import SingleFlight
from serving.errors import AdapterNotLoaded

_log = logging.getLogger(__name__)


class AdapterLoader:
    """Loads each adapter once for everybody who waits for it, and says why when it cannot."""

    def __init__(
        self,
        models: OpenAIServingModels,
        *,
        engine: EngineClient,
        resolver: RegistryResolver,
        residents: Residents,
        metrics: EngineMetrics,
    ) -> None:
        self._models = models
        self._engine = engine
        self._resolver = resolver
        self._residents = residents
        self._metrics = metrics
        self._flights: SingleFlight[str, LoRARequest | ErrorResponse] = SingleFlight()

    def take_over(self) -> None:
        """Make vLLM's handlers come here for names that they do not know."""
        self._models.resolve_lora = self.resolve_lora

    async def resolve_lora(self, lora_name: str) -> LoRARequest | ErrorResponse:
        """Return the loaded adapter, or a 404 when the name is not of our form.

        Raises:
            GracefulHTTPError: the adapter is ours and cannot be had; carries status and reason.
            EngineDeadError: vLLM's own, when the engine core is gone.
        """
        return await self._flights.run(lora_name, lambda: self._load(lora_name))

    async def _load(self, lora_name: str) -> LoRARequest | ErrorResponse:
        if (known := self._models.lora_requests.get(lora_name)) is not None:
            return known
        if not is_version_id(lora_name):
            return _unknown(lora_name)
        try:
            with self._residents.arriving(lora_name):
                request = await self._load_version(lora_name)
        except GracefulHTTPError as exc:
            _log.warning("refused %s: %d %s", lora_name, exc.http_status, exc.message)
            raise
        return _unknown(lora_name) if request is None else request

    async def _load_version(self, lora_name: str) -> LoRARequest | None:
        """Load a version; what the directory hears of it meanwhile counts before anybody can name it."""
        self._residents.require(lora_name)
        request = await self._resolver.resolve_lora(self._models.model_config.model, lora_name)
        if request is None:
            return None
        self._residents.require(lora_name)
        await self._hand_to_engine(request)
        self._models.lora_requests[lora_name] = request
        self._metrics.loaded()
        _log.info("loaded %s", lora_name)
        return request

    async def _hand_to_engine(self, request: LoRARequest) -> None:
        request.lora_int_id = self._models.lora_id_counter.inc(1)
        try:
            with self._metrics.stage("engine_load"):
                loaded = await self._engine.add_lora(request)
        except EngineDeadError:
            raise
        except Exception as exc:  # the engine core sends every failure as a bare Exception with a text
            raise self._resolver.reject(request.lora_name, AdapterNotLoaded(_because(str(exc)))) from exc
        if not loaded:
            raise self._resolver.reject(request.lora_name, AdapterNotLoaded(_because("vLLM did not take it")))


def _unknown(lora_name: str) -> ErrorResponse:
    message = f"The model `{lora_name}` does not exist."
    return create_error_response(message, "NotFoundError", HTTPStatus.NOT_FOUND, param="model")


def _because(reason: str) -> str:
    return f"The engine could not load the adapter: {reason}"
