"""What happens between a client and a network that fails, a proxy that answers, arguments that cannot be sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from lorry.client import (
    ApiError,
    Client,
    Conflict,
    Invalid,
    NotAnswered,
    NotFound,
    NotUnderstood,
    Profile,
    Transcript,
    Turn,
    Unauthenticated,
    Unavailable,
)

BATCH = "b" + "0" * 32
TRAINING = "j" + "0" * 32


class Network(httpx.BaseTransport):
    """Answers requests one after the other as a test wants it; the last answer goes on for ever."""

    def __init__(self, *answers: Callable[[], httpx.Response]) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        return (self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])()


class Pieces(httpx.SyncByteStream):
    """A body that comes in pieces, and then breaks off with an error, if there is one."""

    def __init__(self, *pieces: str, error: Exception | None = None) -> None:
        self._pieces, self._error = pieces, error

    def __iter__(self) -> Iterator[bytes]:
        yield from (piece.encode() for piece in self._pieces)
        if self._error is not None:
            raise self._error


def streamed(*pieces: str, error: Exception | None = None) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(200, stream=Pieces(*pieces, error=error))


def said(body: Any, *, status: int = 200) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(status, json=body)


def client(network: Network, *, attempts: int = 4) -> Client:
    return Client(url="http://gateway.test", key="k", transport=network, attempts=attempts)


def line(sequence: int) -> str:
    told = {"sequence": sequence, "user_id": f"user-{sequence}", "status": "done", "version": 1, "version_id": "v1"}
    return json.dumps({**told, "ended_at": None, "error": None, "profile": {}}) + "\n"


def event(name: str, data: Any, *, id: int | None = None) -> str:
    number = "" if id is None else f"id: {id}\n"
    return f"{number}event: {name}\ndata: {json.dumps(data)}\n\n"


CUT = httpx.ReadError("cut")
SILENT = httpx.ReadTimeout("silent")


def test_results_go_on_where_their_stream_broke_off_and_nobody_is_missed_or_told_twice() -> None:
    network = Network(
        streamed(line(1), line(2), line(3)[:20], error=CUT),
        streamed(error=CUT),
        streamed(line(3), error=CUT),
        streamed(),
    )
    with client(network) as lorry:
        assert [each.sequence for each in lorry.extractions.results(BATCH, after=0, follow=True)] == [1, 2, 3]
    assert [request.url.params["after"] for request in network.requests] == ["0", "2", "2", "3"]
    assert {request.url.params["follow"] for request in network.requests} == {"true"}


def test_a_stream_that_only_breaks_is_given_up_and_a_silent_one_is_not() -> None:
    broken = Network(*[streamed(line(number), error=CUT) for number in (1, 2, 3)], streamed(error=CUT))
    with client(broken, attempts=2) as lorry:
        results = lorry.extractions.results(BATCH, follow=True)
        assert [next(results).sequence for _ in range(3)] == [1, 2, 3]
        with pytest.raises(NotAnswered):
            next(results)
    assert len(broken.requests) == 4, "what came in between counts the attempts anew"
    silent = Network(*[streamed(error=SILENT)] * 9, streamed(line(1)))
    with client(silent, attempts=2) as lorry:
        assert [each.sequence for each in lorry.extractions.results(BATCH, follow=True)] == [1]
    once = Network(streamed(line(1), error=SILENT))
    with client(once, attempts=1) as lorry, pytest.raises(NotAnswered):
        list(lorry.extractions.results(BATCH, follow=True))
    assert len(once.requests) == 1


def test_what_a_stream_of_results_says_of_its_end_is_raised() -> None:
    away = json.dumps({"error": {"code": "storage-unavailable", "message": "it is away"}}) + "\n"
    gone = json.dumps({"error": {"code": "batch-not-found", "message": "it is gone"}}) + "\n"
    network = Network(streamed(line(1), away), streamed(line(2), gone))
    with client(network) as lorry:
        results = lorry.extractions.results(BATCH)
        assert [next(results).sequence, next(results).sequence] == [1, 2]
        with pytest.raises(NotFound, match="it is gone") as ended:
            next(results)
    assert ended.value.code == "batch-not-found"
    stuck = Network(streamed(away))
    with client(stuck, attempts=2) as lorry, pytest.raises(Unavailable, match="it is away"):
        list(lorry.extractions.results(BATCH))
    with client(Network(streamed("<html>\n"))) as lorry, pytest.raises(NotUnderstood):
        list(lorry.extractions.results(BATCH))


def test_a_training_is_watched_over_many_connections_until_its_end() -> None:
    refused = {"status": 503, "type": "urn:lorry:problem:training-unavailable", "detail": "it restarts"}
    network = Network(
        streamed(event("event", {"kind": "submitted"}, id=5), ": still here\n\n"),  # closed before the end
        streamed(event("event", {"kind": "started"}, id=9), event("error", refused)),
        streamed(event("progress", {"share": 1}), event("end", {"state": "succeeded"}), error=CUT),  # after the end
    )
    with client(network) as lorry:
        events = list(lorry.trainings.watch(TRAINING))
    assert [(each.name, each.id) for each in events] == [
        ("event", 5), ("event", 9), ("progress", None), ("end", None)
    ]  # fmt: skip
    assert [request.url.params["after"] for request in network.requests] == ["0", "5", "9"]


def test_an_answer_that_ends_too_early_is_no_answer() -> None:
    for network in (Network(streamed(event("delta", {"text": "te"}))), Network(streamed('data: {"choices": []}\n\n'))):
        with client(network) as lorry:
            with pytest.raises(NotAnswered, match="ended before the answer"), lorry.stream_query("ann", "?") as query:
                list(query)
            with pytest.raises(NotAnswered, match="ended before the answer"), lorry.stream_chat("ann", []) as chat:
                list(chat)


def test_a_chat_that_breaks_off_raises_what_was_told() -> None:
    error = {"error": {"message": "the engine went away", "type": "server_error", "code": None, "param": None}}
    network = Network(streamed(f"data: {json.dumps(error)}\n\n"))
    with client(network) as lorry, pytest.raises(Unavailable, match="went away"), lorry.stream_chat("ann", []) as chat:
        list(chat)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx.Response(200, html="<p>Please log in</p>"),
        said([]),
        said({"answer": "tea"}),
        said(None),
    ],
)
def test_what_is_no_answer_of_the_gateways_is_an_error_of_the_clients(answer: Callable[[], httpx.Response]) -> None:
    with client(Network(answer)) as lorry:
        for call in (
            lambda: lorry.query("ann", "?"),
            lambda: lorry.chat("ann", []),
            lambda: list(lorry.extractions.list()),
            lambda: lorry.put_transcript("ann", Transcript(name="t", turns=[])),
        ):
            with pytest.raises(NotUnderstood, match="cannot read"):
                call()


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "../v1/bank", "ann?x=1", "ännchen", "a b", "a\n"])
def test_a_name_that_would_lead_elsewhere_is_refused_before_anything_is_sent(bad: str) -> None:
    network = Network(said({}))
    with client(network) as lorry:
        calls: list[tuple[str, Callable[[], Any]]] = [
            ("user_id", lambda: lorry.get_profile(bad)),
            ("user_id", lambda: lorry.erasures.watch(bad)),
            ("transcript_id", lambda: lorry.delete_transcript("ann", bad)),
            ("adapter", lambda: lorry.adapters.get("ann", bad)),
            ("selector", lambda: lorry.adapters.retire_version("ann", bad, why="x")),
            ("alias", lambda: lorry.adapters.get_alias("ann", bad)),
            ("extraction_id", lambda: lorry.extractions.cancel(bad)),
            ("training_id", lambda: lorry.cancel_training(bad)),
            ("model", lambda: lorry.models.get(f"users/{bad.replace('/', '//')}")),
        ]
        for field, call in calls:
            with pytest.raises(Invalid) as refused:
                call()
            assert (refused.value.field, refused.value.code, refused.value.status) == (field, "invalid-name", 422)
    assert not network.requests


@pytest.mark.parametrize("url", ["gateway:8080", "", "ftp://gateway", "http://gateway/v1", "http://gateway/v1/"])
def test_a_url_that_is_no_gateways_is_refused(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        Client(url=url, key="k")
    assert refused.value.field == "url"


@pytest.mark.parametrize("key", ["", "lorry key", "ключ", "lorry\n"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        Client(url="http://gateway", key=key)
    assert refused.value.field == "key"
    with client(Network(said({}))) as lorry, pytest.raises(Invalid) as invalid:
        lorry.with_idempotency_key(key)
    assert invalid.value.field == "idempotency_key"


def test_an_idempotency_key_of_the_callers_own_goes_along_with_that_call_alone() -> None:
    network = Network(said({"created": 1, "known": 0, "refused": [], "refused_count": 0}))
    long = [Turn(role="user", text="tea " * 1_200_000)]
    with client(network) as lorry:
        lorry.with_idempotency_key("import-7").put_transcripts(
            "ann", [Transcript(name=f"t{n}", turns=long) for n in "abc"]
        )
        lorry.put_transcripts("ann", [Transcript(name="d", turns=long)])
    keys = [request.headers["idempotency-key"] for request in network.requests]
    assert keys[:3] == ["import-7", "import-7.1", "import-7.2"]
    assert "import-7" not in keys[3]


def test_all_attempts_of_a_call_share_a_key_and_reading_has_none() -> None:
    network = Network(said({}, status=503), said({"detail": "taken"}, status=409), said({}, status=404))
    with client(network) as lorry:
        with pytest.raises(Conflict):
            lorry.extractions.submit(["ann"])
        with pytest.raises(NotFound):
            lorry.extractions.get(BATCH)
    first, second, third = (request.headers.get("idempotency-key") for request in network.requests)
    assert first == second
    assert first is not None
    assert third is None


def test_a_question_goes_without_its_key_while_the_database_is_away_but_not_without_the_callers() -> None:
    """It changes nothing, so that nobody need wait for where keys are kept. A stream is not kept, and has none."""
    away = {"type": "urn:lorry:problem:database-unavailable", "status": 503}
    asked: list[str | None] = []

    def keys(answers: list[dict[str, Any]], ask: Callable[[Client], object], *, key: str | None = None) -> list[bool]:
        network = Network(*(said(each, status=each["status"]) for each in answers))
        with client(network, attempts=1) as lorry, pytest.raises(ApiError):
            ask(lorry if key is None else lorry.with_idempotency_key(key))
        asked[:] = [request.headers.get("idempotency-key") for request in network.requests]
        return [each is not None for each in asked]

    gone = {"type": "urn:lorry:problem:unknown-user", "status": 404}
    chat: list[dict[str, str]] = [{"role": "user", "content": "Tea?"}]
    for ask in (lambda lorry: lorry.query("ann", "Tea?"), lambda lorry: lorry.chat("ann", chat)):
        assert keys([away, gone], ask) == [True, False]
        assert keys([gone], ask) == [True]
        assert keys([away], ask, key="mine") == [True]
        assert asked == ["mine"]
    assert keys([away], lambda lorry: lorry.submit_training("ann")) == [True]
    network = Network(said(away, status=503))
    with client(network, attempts=2) as lorry, pytest.raises(Unavailable):
        lorry.query("ann", "Tea?")
    assert ["idempotency-key" in request.headers for request in network.requests] == [True, False, False]
    assert keys([gone], lambda lorry: lorry.stream_query("ann", "Tea?").__enter__()) == [False]


def test_a_profile_that_has_not_changed_is_not_sent_again() -> None:
    network = Network(lambda: httpx.Response(304), lambda: httpx.Response(200, json={"user": "ann"}))
    known = Profile(document={}, adapter_version=1, etag='"e1"')
    with client(network) as lorry:
        assert lorry.get_profile("ann", known=known) is known
        assert lorry.get_profile("ann", known=known).document == {"user": "ann"}
        assert lorry.get_profile("ann").document == {"user": "ann"}
    assert [request.headers.get("if-none-match") for request in network.requests] == ['"e1"', '"e1"', None]
    with client(Network(lambda: httpx.Response(304))) as lorry, pytest.raises(ApiError):
        lorry.get_profile("ann")


def test_who_watches_hears_every_change_until_the_end() -> None:
    store = {"store": "jobs", "state": "waiting", "waits_for": ["worker w1"]}
    report: dict[str, Any] = {"id": "e1", "state": "running", "asked_by": "api", "asked_at": "2026-01-01T00:00:00Z"}
    first = {**report, "ended_at": None, "stores": [store]}
    last = {**report, "state": "done", "ended_at": "2026-01-01T00:01:00Z", "stores": [], "a newer field": 1}
    network = Network(said(first), said(first), said(last))
    with client(network) as lorry:
        heard = list(lorry.erasures.watch("ann", every_seconds=0.0))
    assert [(each.state, each.waits_for, each.ended) for each in heard] == [
        ("running", ("jobs: worker w1",), False),
        ("done", (), True),
    ]
    assert len(network.requests) == 3
