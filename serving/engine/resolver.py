"""vLLM's resolver of adapter names: an opaque version_id becomes a LoRARequest.

vLLM, its logs and its metrics see the version_id only; whose adapter it is stays in the registry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http import HTTPStatus

from vllm.exceptions import GracefulHTTPError
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver

from kit.errors import LorryError
from serving.engine.source import AdapterSource

RESOLVER_NAME = "lorry"
_VERSION_ID = re.compile(r"v[0-9a-f]{32}", re.ASCII)
_UNNUMBERED = 1  # vLLM replaces the number by its own
_noted: ContextVar[list[LorryError] | None] = ContextVar("lorry_refusals", default=None)


def is_version_id(name: str) -> bool:
    """Say whether a model name is one of ours."""
    return _VERSION_ID.fullmatch(name) is not None


class RegistryResolver(LoRAResolver):  # type: ignore[misc]  # vLLM is not typed
    """Registered in every process of vLLM; works in the API server, once `connect` gave it a source."""

    def __init__(self) -> None:
        self._source: AdapterSource | None = None

    @property
    def connected(self) -> bool:
        """Whether adapters can be resolved."""
        return self._source is not None

    def connect(self, source: AdapterSource) -> None:
        """Fetch adapters from `source` from now on."""
        self._source = source

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """Return the request that loads version `lora_name`; None = not a version_id, so not ours.

        Raises:
            GracefulHTTPError: the version is ours and cannot be had; vLLM answers with its status and message.
        """
        if not is_version_id(lora_name):
            return None
        if self._source is None:
            raise GracefulHTTPError("The engine is still starting.", HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            await self._source.find(lora_name)
        except LorryError as exc:
            raise refusal(exc) from exc
        directory = self._source.directory_of(lora_name)
        return LoRARequest(lora_name=lora_name, lora_int_id=_UNNUMBERED, lora_path=str(directory))

    def reject(self, version_id: str, error: LorryError) -> GracefulHTTPError:
        """Refuse a version that was resolved and could not be loaded; returns what to raise."""
        if self._source is not None:
            self._source.reject(version_id, error)
        return refusal(error)


class Refused(GracefulHTTPError):  # type: ignore[misc]  # vLLM is not typed
    """A refusal of ours on its way through vLLM."""


def refusal(error: LorryError) -> Refused:
    """Return what makes vLLM answer with the error's status and message in OpenAI's shape."""
    if (noted := _noted.get()) is not None:
        noted.append(error)
    return Refused(error.message, HTTPStatus(error.status_code))


@contextmanager
def noting_refusals() -> Iterator[list[LorryError]]:
    """Gather what the request of this context is refused with in the block: vLLM's answer drops all but two fields."""
    noted: list[LorryError] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)
