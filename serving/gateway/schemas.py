"""What travels over the public API, besides profiles."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from registry.manifest import Manifest
from serving.extraction.profile import AdapterVersion

ADAPTER_VERSION_HEADER = "x-lorry-adapter-version"


class Problem(BaseModel):
    """A refusal (RFC 9457), as ``application/problem+json``."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None


class QueryRequest(BaseModel):
    """One question to a user's adapter."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1, max_length=8000)
    max_tokens: int = Field(256, ge=1, le=4096, description="longest answer")
    temperature: float = Field(0.0, ge=0, le=2, description="0 gives the same answer every time")
    answer_schema: dict[str, Any] | None = Field(
        None, alias="schema", description="a JSON Schema; the answer is then JSON of that shape"
    )


class QueryResponse(BaseModel):
    """What the adapter answered, and which version of it."""

    answer: Any = Field(description="text, or JSON when a schema was given")
    truncated: bool = Field(description="whether the answer was cut at max_tokens")
    adapter: AdapterVersion


class ChatRequest(BaseModel):
    """An OpenAI chat completion request; `model` is ``users/<user_id>``.

    Only these fields are taken: what else vLLM understands could reach beyond one user's request.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=400)
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=1000)
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1, le=16)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = None
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    # Taken because clients send them, and kept from the engine: it needs to know none of these.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None

    def to_engine(self, version_id: str) -> dict[str, Any]:
        """Return the engine's request: the same, asked of one opaque version."""
        kept_here = {"model", "user", "metadata", "store", "service_tier"}
        return {"model": version_id, **self.model_dump(exclude=kept_here, exclude_unset=True, exclude_none=True)}


class Model(BaseModel):
    """One of the caller's own adapters, as OpenAI's API describes a model."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="seconds since 1970")
    owned_by: str


class ModelList(BaseModel):
    """A page of models; pass `next_cursor` as `cursor` for the next one, null on the last."""

    object: Literal["list"] = "list"
    data: list[Model]
    next_cursor: str | None = None


def adapter_version(manifest: Manifest) -> AdapterVersion:
    """Return how answers name the version that gave them."""
    return AdapterVersion(version=manifest.version, version_id=manifest.version_id)


def adapter_headers(version: int) -> dict[str, str]:
    """Return the header that says which adapter version answered."""
    return {ADAPTER_VERSION_HEADER: str(version)}
