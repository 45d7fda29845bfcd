# Made by scripts/blocking_client.py of lorry/client/awaited: change it there.
"""The public API: one client, its nouns, and the calls that are verbs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from lorry.client.blocking.adapters import Adapters
from lorry.client.blocking.bank import Bank
from lorry.client.blocking.corrections import Corrections
from lorry.client.blocking.erasures import Erasures
from lorry.client.blocking.extractions import Extractions
from lorry.client.blocking.models import Models
from lorry.client.blocking.profiles import Profiles
from lorry.client.blocking.streams import ChatStream, QueryStream
from lorry.client.blocking.trainings import Trainings
from lorry.client.blocking.transcripts import Transcripts
from lorry.client.blocking.wire import Wire
from lorry.client.calls import questions
from lorry.client.calls import usage as usage_calls
from lorry.client.calls.questions import Fallback
from lorry.client.patience import client_arguments
from lorry.client.results import Answer, ChatAnswer, Usage


class Client:
    """One tenant's Lorry; use it as a context manager. It may be shared between threads.

    Its nouns are `profiles`, `corrections`, `bank`, `transcripts`, `trainings`, `extractions`, `adapters`, `models` and
    `erasures`; the calls that are made every day have short names of their own (`get_profile`, `put_transcript` …).
    """

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

        Raises:
            Invalid: for a URL that cannot be a gateway's.
            Unauthenticated: for a key that cannot be sent.
        """
        arguments = client_arguments(url, key, timeout_seconds=timeout_seconds)
        http = httpx.Client(**arguments, transport=transport)
        self._use(Wire(http, deadline_seconds=deadline_seconds, attempts=attempts))

    def _use(self, wire: Wire) -> None:
        self._wire = wire
        self.profiles = Profiles(wire)
        self.corrections = Corrections(wire)
        self.bank = Bank(wire)
        self.transcripts = Transcripts(wire)
        self.trainings = Trainings(wire)
        self.extractions = Extractions(wire)
        self.adapters = Adapters(wire)
        self.models = Models(wire)
        self.erasures = Erasures(wire)
        self.get_profile = self.profiles.get
        self.get_profile_page = self.profiles.page
        self.extract_profile = self.profiles.extract
        self.put_transcript = self.transcripts.put
        self.put_transcripts = self.transcripts.put_many
        self.get_transcript = self.transcripts.get
        self.delete_transcript = self.transcripts.delete
        self.list_transcripts = self.transcripts.list
        self.submit_training = self.trainings.submit
        self.list_trainings = self.trainings.list
        self.get_training = self.trainings.get
        self.cancel_training = self.trainings.cancel
        self.watch_training = self.trainings.watch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection, also of what `with_idempotency_key` returned."""
        self._wire.close()

    def with_idempotency_key(self, key: str) -> Self:
        """Return this client for one call that changes something, under a key of your own.

        Asked again under that key within the hour, also by another process, the call is not done again and answered as
        it was the first time. Without it each call gets a key that only its own attempts share.

        Raises:
            Invalid: unless it is 1 to 255 visible ASCII characters.
        """
        found = copy.copy(self)
        found._use(self._wire.under(key))
        return found

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
        call = questions.query(
            user, question, schema=schema, max_tokens=max_tokens, temperature=temperature, fallback=fallback
        )
        return self._wire.send(call)

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
        call = questions.stream_query(user, question, max_tokens=max_tokens, temperature=temperature, fallback=fallback)
        with self._wire.open(call) as opened:
            yield QueryStream(opened)

    def chat(
        self, user: str, messages: Sequence[Mapping[str, Any]], *, fallback: Fallback | None = None, **options: Any
    ) -> ChatAnswer:
        """Complete a chat with a user's adapter; `options` are OpenAI's. Raises as `query`.

        `user` may be followed by ``/<adapter>`` and by ``@<alias or version>``.
        """
        return self._wire.send(questions.chat(user, messages, fallback=fallback, options=options))

    @contextmanager
    def stream_chat(
        self, user: str, messages: Sequence[Mapping[str, Any]], *, fallback: Fallback | None = None, **options: Any
    ) -> Iterator[ChatStream]:
        """Chat as `chat` does, and yield the first choice's pieces as they are spoken; leaving the block ends it.

        What breaks off in the middle rises from the pieces.
        """
        call = questions.stream_chat(user, messages, fallback=fallback, options=options)
        with self._wire.open(call) as opened:
            yield ChatStream(opened)

    def usage(
        self,
        *,
        by: Literal["user", "day"] = "user",
        since: date | None = None,
        until: date | None = None,
        user: str | None = None,
    ) -> Iterator[Usage]:
        """Yield what the tenant used: a row a user and day, or sums a day; the last 30 days unless it is said."""
        return self._wire.pages(
            lambda cursor: usage_calls.list_page(by=by, since=since, until=until, user=user, cursor=cursor)
        )
