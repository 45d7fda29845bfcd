"""Answers of adapters, and who gives them."""

from __future__ import annotations

from typing import Any, Literal

from lorry.client.results.result import Result


class AdapterVersion(Result):
    """The version of an adapter that answered."""

    version: int
    version_id: str


class Answer(Result):
    """The answer to a question: text, or JSON when a schema was given; `adapter` None = the base answered."""

    answer: Any
    truncated: bool
    adapter: AdapterVersion | None
    fallback: Literal["profile"] | None = None


class ChatAnswer(Result):
    """A chat completion; `text` is its first choice, `completion` all of it as OpenAI's API says it."""

    text: str
    adapter_version: int | None
    completion: dict[str, Any]


class Model(Result):
    """An adapter with a live version, as OpenAI's API names it; `created` is in seconds since 1970."""

    id: str
    created: int
    owned_by: str
