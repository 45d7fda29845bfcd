"""The last look at an adapter's name, in place of vLLM's: why it cannot be had, not merely that it cannot.

vLLM's own `OpenAIServingModels.resolve_lora` answers every failure with the same 400 without a reason, swallows
cancellation, and keeps one lock for every name ever asked. A request that came through the door has its adapter
already, so this is for names that nobody knows. The seam is private, so a contract test watches it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus

from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.lora.request import LoRARequest

from kit.errors import LorryError
from serving.engine.pool.pool import AdapterPool
from serving.engine.resolver import is_version_id, refusal

_log = logging.getLogger(__name__)


class AdapterLoader:
    """Asks the pool for what vLLM does not know."""

    def __init__(
        self,
        models: OpenAIServingModels,
        *,
        pool: AdapterPool,
        on_refused: Callable[[LorryError], None] = lambda error: None,
    ) -> None:
        """Ask `pool`; `on_refused` is told of what cannot be had."""
        self._models = models
        self._on_refused = on_refused
        self._pool = pool

    def take_over(self) -> None:
        """Make vLLM's handlers come here for names that they do not know."""
        self._models.resolve_lora = self.resolve_lora

    async def resolve_lora(self, lora_name: str) -> LoRARequest | ErrorResponse:
        """Return the adapter, staged, or a 404 when the name is not of our form.

        Raises:
            GracefulHTTPError: the adapter is ours and cannot be had; carries status and reason.
        """
        if not is_version_id(lora_name):
            return _unknown(lora_name)
        try:
            await self._pool.prefetch(lora_name)
        except LorryError as exc:
            _log.warning("refused %s: %d %s", lora_name, exc.status_code, exc.message)
            self._on_refused(exc)
            raise refusal(exc) from exc
        return self._models.lora_requests.get(lora_name) or _unknown(lora_name)


def _unknown(lora_name: str) -> ErrorResponse:
    message = f"The model `{lora_name}` does not exist."
    return create_error_response(message, "NotFoundError", HTTPStatus.NOT_FOUND, param="model")
