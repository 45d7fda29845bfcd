"""Calls that ask an adapter: a question, a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx

from lorry.client.calls.call import Call, adapter_version, given, model, stream, user_path
from lorry.client.results import Answer, ChatAnswer

Fallback = Literal["profile"]
_EVENTS = "text/event-stream"


def query(
    user: str,
    question: str,
    *,
    schema: Mapping[str, Any] | None,
    max_tokens: int,
    temperature: float,
    fallback: Fallback | None,
) -> Call[Answer]:
    """Ask a user's adapter."""
    body = {"question": question, "max_tokens": max_tokens, "temperature": temperature}
    body |= given(schema=schema, fallback=fallback)
    return Call(method="POST", path=f"{user_path(user)}/query", json=body, read=model(Answer), changes=False)


def stream_query(
    user: str, question: str, *, max_tokens: int, temperature: float, fallback: Fallback | None
) -> Call[None]:
    """Ask a user's adapter, to hear the answer as it is spoken."""
    body = {"question": question, "max_tokens": max_tokens, "temperature": temperature, "stream": True}
    body |= given(fallback=fallback)
    return stream(f"{user_path(user)}/query", method="POST", json=body, accept=_EVENTS)


def chat(
    user: str, messages: Sequence[Mapping[str, Any]], *, fallback: Fallback | None, options: Mapping[str, Any]
) -> Call[ChatAnswer]:
    """Complete a chat with a user's adapter; `options` are OpenAI's."""

    def read(response: httpx.Response) -> ChatAnswer:
        completion = response.json()
        text = completion["choices"][0]["message"].get("content") or ""
        return ChatAnswer(text=text, adapter_version=adapter_version(response), completion=completion)

    body = _chat(user, messages, fallback=fallback, options=options)
    return Call(method="POST", path="/v1/chat/completions", json=body, read=read, changes=False)


def stream_chat(
    user: str, messages: Sequence[Mapping[str, Any]], *, fallback: Fallback | None, options: Mapping[str, Any]
) -> Call[None]:
    """Complete a chat with a user's adapter, to hear it as it is spoken."""
    body = _chat(user, messages, fallback=fallback, options=options)
    return stream("/v1/chat/completions", method="POST", json={**body, "stream": True}, accept=_EVENTS)


def _chat(
    user: str, messages: Sequence[Mapping[str, Any]], *, fallback: Fallback | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    return {**options, "model": f"users/{user}", "messages": list(messages)} | given(fallback=fallback)
