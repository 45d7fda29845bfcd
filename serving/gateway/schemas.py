"""What travels over the public API, besides profiles."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from registry.manifest import Manifest
from serving.extraction.profile import AdapterVersion
from serving.gateway.answer_shapes import check_response_format, check_shape

ADAPTER_VERSION_HEADER = "x-lorry-adapter-version"
FALLBACK_HEADER = "x-lorry-fallback"
# Each is looked at for every token of everybody's who is in the engine's batch.
_MOST_STOPS, _MOST_STOP_CHARACTERS, _MOST_BIASES, _MOST_TOOLS = 16, 200, 1024, 64


def _shaped(schema: dict[str, Any]) -> dict[str, Any]:
    check_shape(schema)
    return schema


def _formed(form: dict[str, Any]) -> dict[str, Any]:
    check_response_format(form)
    return form


def _tooled(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    check_shape(tools)
    return tools


AnswerSchema = Annotated[dict[str, Any], AfterValidator(_shaped)]
ResponseFormat = Annotated[dict[str, Any], AfterValidator(_formed)]
Tools = Annotated[list[dict[str, Any]], Field(max_length=_MOST_TOOLS), AfterValidator(_tooled)]
StopText = Annotated[str, Field(max_length=_MOST_STOP_CHARACTERS)]
StopTexts = Annotated[list[StopText], Field(max_length=_MOST_STOPS)]


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
    answer_schema: AnswerSchema | None = Field(
        None, alias="schema", description="a JSON Schema of bounded size; the answer is then JSON of that shape"
    )
    stream: bool = Field(
        False, description="answer as server-sent events: `delta` with `text`, then `done` as below; or `error`"
    )
    fallback: Literal["profile"] | None = Field(
        None, description="without an adapter, let the base answer with the profile in its prompt; else 409"
    )

    def to_engine(self, model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the engine's request."""
        request: dict[str, Any] = {
            "model": model,
            "messages": messages,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        if self.answer_schema is not None:
            schema = {"name": "answer", "schema": self.answer_schema}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request


class QueryResponse(BaseModel):
    """What was answered, and who answered."""

    answer: Any = Field(description="text, or JSON when a schema was given")
    truncated: bool = Field(description="whether the answer was cut at max_tokens")
    adapter: AdapterVersion | None = Field(description="the version that answered; null for the base")
    fallback: Literal["profile"] | None = Field(None, description="what answered in the place of an adapter")


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
    stop: StopText | StopTexts | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    logit_bias: dict[str, float] | None = Field(None, max_length=_MOST_BIASES)
    response_format: ResponseFormat | None = None
    tools: Tools | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    # Taken because clients send them, and kept from the engine: it needs to know none of these.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    # Ours: what the header `x-lorry-fallback` says, too.
    fallback: Literal["profile"] | None = None

    def to_engine(self, model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the engine's request: the same, asked of one opaque version."""
        kept_here = {"model", "messages", "user", "metadata", "store", "service_tier", "fallback"}
        rest = self.model_dump(exclude=kept_here, exclude_unset=True, exclude_none=True)
        return {"model": model, "messages": messages, **rest}

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with an event that counts tokens."""
        return bool((self.stream_options or {}).get("include_usage"))


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


def adapter_headers(version: int | None) -> dict[str, str]:
    """Return the header that says which adapter version answered; None = none did."""
    return {ADAPTER_VERSION_HEADER: "none" if version is None else str(version)}
