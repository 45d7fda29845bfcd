"""Answers as they are spoken."""

from __future__ import annotations

from collections.abc import AsyncIterator

from lorry.client.awaited.wire import AsyncOpened
from lorry.client.calls.call import version_in
from lorry.client.errors import NotAnswered
from lorry.client.events import ChatReader, EventReader
from lorry.client.results import Answer

_CUT = "the stream ended before the answer"


class AsyncQueryStream:
    """The pieces of an answer as they are spoken; `answer` is the whole, once there are no more."""

    def __init__(self, opened: AsyncOpened) -> None:
        self._lines = opened.lines
        self.answer: Answer | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        reader = EventReader()
        async for line in self._lines:
            event = reader.feed(line)
            if event is not None and event.name == "delta":
                yield str(event.data["text"])
            elif event is not None and event.name == "done":
                self.answer = Answer.model_validate(event.data)
        if self.answer is None:
            raise NotAnswered(_CUT)


class AsyncChatStream:
    """The pieces of a completion's first choice as they are spoken, and which version speaks; None = the base.

    `finish_reason` is OpenAI's, once there are no more.
    """

    def __init__(self, opened: AsyncOpened) -> None:
        self._lines = opened.lines
        self.adapter_version = version_in(opened.headers)
        self.finish_reason: str | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        reader = ChatReader()
        async for line in self._lines:
            chunk = reader.feed(line)
            for choice in chunk.get("choices", []) if chunk is not None else []:
                if choice.get("index", 0) == 0:
                    self.finish_reason = choice.get("finish_reason") or self.finish_reason
                    if text := choice.get("delta", {}).get("content"):
                        yield str(text)
        if not reader.ended:
            raise NotAnswered(_CUT)
