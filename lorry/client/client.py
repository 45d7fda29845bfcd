"""The public API, called and waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
from tenacity import Retrying

from kit.lines import lines
from lorry.client import calls
from lorry.client.calls import Call, Fallback, Page
from lorry.client.errors import error_from
from lorry.client.events import EventReader
from lorry.client.patience import client_arguments, not_answered, options, request_arguments
from lorry.client.results import (
    Answer,
    BulkResult,
    ChatAnswer,
    Profile,
    Training,
    TrainingEvent,
    Transcript,
    TranscriptHead,
    Usage,
)

T = TypeVar("T")


class QueryStream:
    """The pieces of an answer as they are spoken; `answer` is the whole, once there are no more."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.answer: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        reader = EventReader()
        for line in self._lines:
            event = reader.feed(line)
            if event is not None and event[0] == "delta":
                yield str(event[1]["text"])
            elif event is not None and event[0] == "done":
                self.answer = Answer.model_validate(event[1])


class Client:
    """One tenant's Lorry; use it as a context manager. It may be shared between threads."""

    def __init__(
        self,
        *,
        url: str,
        key: str,
        timeout_seconds: float = 120.0,
        deadline_seconds: float | None = None,
        attempts: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: of the gateway, without ``/v1``.
            key: an API key of the tenant.
            timeout_seconds: longest silence of the gateway.
            deadline_seconds: how long each answer may take in all; Lorry gives up on it by then, too.
            attempts: of each call, with random and growing pauses; 1 = none is repeated.
            transport: how to connect, for tests; None = the network.
        """
        arguments = client_arguments(url, key, timeout_seconds=timeout_seconds)
        self._http = httpx.Client(**arguments, transport=transport)
        self._deadline_seconds = deadline_seconds
        self._attempts = attempts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def query(
        self,
        user: str,
        question: str,
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        fallback: Fallback | None = None,
    ) -> Answer:
        """Ask a user's live adapter one question; with a JSON Schema, the answer is JSON of that shape.

        Args:
            user: whose adapter.
            question: what is asked.
            schema: of the answer.
            max_tokens: longest answer.
            temperature: 0 gives the same answer every time.
            fallback: without an adapter, let the base answer with the user's profile in its prompt.

        Raises:
            NotFound: when the tenant knows no such user.
            Conflict: when the user has no adapter and there is no fallback.
        """
        call = calls.query(
            user, question, schema=schema, max_tokens=max_tokens, temperature=temperature, fallback=fallback
        )
        return self._send(call)

    def chat(
        self, user: str, messages: Sequence[Mapping[str, Any]], *, fallback: Fallback | None = None, **options: Any
    ) -> ChatAnswer:
        """Complete a chat with a user's adapter; `options` are OpenAI's, but for streaming. Raises as `query`."""
        return self._send(calls.chat(user, messages, fallback=fallback, options=options))

    def get_profile(self, user: str) -> Profile:
        """Return the newest profile.

        Raises:
            NotFound: when there is none.
        """
        return self._send(calls.get_profile(user))

    def get_profile_page(self, user: str) -> str:
        """Return the newest profile as Markdown; raises as `get_profile`."""
        return self._send(calls.get_profile_page(user))

    def extract_profile(self, user: str) -> Profile:
        """Extract a profile with the live adapter, which takes up to a minute on a CPU engine.

        Raises as `query`, and `Forbidden` once it is kept, when the API key may not read profiles.
        """
        return self._send(calls.extract_profile(user))

    def put_transcript(self, user: str, transcript: Transcript) -> str:
        """Keep a transcript under its name, in the place of what had that name; return its id.

        Raises:
            Invalid: naming the field.
        """
        return self._send(calls.put_transcript(user, transcript))

    def put_transcripts(self, user: str, transcripts: Iterable[Transcript]) -> BulkResult:
        """Keep many transcripts, in as many calls as it takes; those that are refused are named in the result."""
        sent = [self._send(call) for call in calls.put_transcripts(user, transcripts)]
        return calls.merge(sent)

    def get_transcript(self, user: str, name: str) -> Transcript:
        """Return a transcript by its name or id.

        Raises:
            NotFound: when the user has none.
        """
        return self._send(calls.get_transcript(user, name))

    def delete_transcript(self, user: str, name: str) -> None:
        """Delete a transcript by its name or id.

        Raises:
            NotFound: when the user has none.
        """
        self._send(calls.delete_transcript(user, name))

    def list_transcripts(self, user: str) -> Iterator[TranscriptHead]:
        """Yield all of a user's transcripts, without their turns."""
        yield from self._pages(lambda cursor: calls.list_transcripts(user, cursor=cursor))

    def submit_training(
        self, user: str, *, adapter: str | None = None, settings: Mapping[str, float] | None = None, why: str = ""
    ) -> Training:
        """Queue a training of a user's adapter.

        Raises:
            Conflict: when one is active (`problem["job_id"]`), or there is nothing to train on.
            RateLimited: when the tenant's quota is used up.
        """
        return self._send(calls.submit_training(user, adapter=adapter, settings=settings, why=why))

    def list_trainings(self, *, user: str | None = None, states: Sequence[str] = ()) -> Iterator[Training]:
        """Yield the tenant's trainings, the latest first."""
        yield from self._pages(lambda cursor: calls.list_trainings(user=user, states=states, cursor=cursor))

    def get_training(self, training_id: str) -> Training:
        """Return one training.

        Raises:
            NotFound: when the tenant has none of that id.
        """
        return self._send(calls.get_training(training_id))

    def cancel_training(self, training_id: str) -> Training:
        """End a training and remove what it has made. Raises as `get_training`."""
        return self._send(calls.cancel_training(training_id))

    def watch_training(self, training_id: str) -> Iterator[TrainingEvent]:
        """Yield what has happened to a training and what comes, until it ends. Raises as `get_training`."""
        with self._open(calls.training_events(training_id)) as lines:
            reader = EventReader()
            for line in lines:
                if (event := reader.feed(line)) is not None:
                    yield TrainingEvent(name=event[0], data=event[1])

    def usage(
        self,
        *,
        by: Literal["user", "day"] = "user",
        since: date | None = None,
        until: date | None = None,
        user: str | None = None,
    ) -> Iterator[Usage]:
        """Yield what the tenant used: a row a user and day, or sums a day; the last 30 days unless it is said."""
        first, last = (None if day is None else day.isoformat() for day in (since, until))
        yield from self._pages(lambda cursor: calls.usage(by=by, since=first, until=last, user=user, cursor=cursor))

    @contextmanager
    def stream_query(
        self,
        user: str,
        question: str,
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        fallback: Fallback | None = None,
    ) -> Iterator[QueryStream]:
        """Ask as `query` does, and yield the answer's pieces as they are spoken; leaving the block ends it.

        What breaks off in the middle rises from the pieces.
        """
        call = calls.query(
            user,
            question,
            schema=None,
            max_tokens=max_tokens,
            temperature=temperature,
            fallback=fallback,
            stream=True,
        )
        with self._open(call) as lines:
            yield QueryStream(lines)

    def _send(self, call: Call[T]) -> T:
        arguments = request_arguments(call, deadline_seconds=self._deadline_seconds)

        def attempt() -> T:
            try:
                response = self._http.request(**arguments)
            except httpx.HTTPError as exc:
                raise not_answered(exc) from exc
            if not response.is_success:
                raise error_from(response)
            return call.read(response)

        return Retrying(**options(self._attempts))(attempt)

    def _pages(self, call: Callable[[str | None], Call[Page[T]]]) -> Iterator[T]:
        cursor = None
        while True:
            page = self._send(call(cursor))
            yield from page.items
            if (cursor := page.cursor) is None:
                return

    @contextmanager
    def _open(self, call: Call[Any]) -> Iterator[Iterator[str]]:
        """Yield the lines of a stream, which is begun patiently and not begun again once it runs."""
        request = self._http.build_request(**request_arguments(call, deadline_seconds=self._deadline_seconds))
        response = Retrying(**options(self._attempts))(self._begin, request)
        try:
            yield _lines(response)
        finally:
            response.close()

    def _begin(self, request: httpx.Request) -> httpx.Response:
        try:
            response = self._http.send(request, stream=True)
            if not response.is_success:
                response.read()
        except httpx.HTTPError as exc:
            raise not_answered(exc) from exc
        if not response.is_success:
            raise error_from(response)
        return response


def _lines(response: httpx.Response) -> Iterator[str]:
    try:
        yield from lines(response.iter_bytes())
    except httpx.HTTPError as exc:
        raise not_answered(exc) from exc
