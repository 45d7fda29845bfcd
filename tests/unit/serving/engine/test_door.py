"""The door in front of an application, with a real pool behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from vllm.exceptions import GracefulHTTPError

from kit.errors import LorryError
from registry.errors import BaseModelMismatch
from serving.engine.door import ASK_ANOTHER_HEADER, Admittance, Door
from serving.engine.pool.admission import Ticket
from serving.engine.pool.erasure import Removal
from serving.engine.pool.limits import Limits, RequestClass
from serving.engine.pool.observer import Found, Observer
from serving.engine.pool.pool import AdapterPool
from serving.engine.pool.tier import Tier
from serving.engine.resolver import refusal
from serving.engine.sequences import Hold, WatchedSequences
from serving.engine.urgency import Urgency
from serving.errors import (
    AdapterDamaged,
    AdmissionTimeout,
    BaseWithoutEngine,
    CacheFull,
    EngineBusy,
    EngineDraining,
    EngineOutOfTouch,
    MachineRefused,
    OrderInvalid,
)
from serving.extraction.engine_answer import raise_for_status
from tests.support.waiting import settle, until

ADA, BOB, BROKEN = "v" + "a" * 32, "v" + "b" * 32, "v" + "0" * 32
ENDLESS = "v" + "e" * 32
ELSEWHERE = "v" + "1" * 32
ROOMLESS, REFUSED_BY_MACHINE = "v" + "2" * 32, "v" + "3" * 32


class Shelf:
    """A store that has every adapter but those that cannot be had."""

    def at_hand(self, version_id: str) -> bool:
        return False

    async def install(self, version_id: str, *, urgent: Urgency) -> int:
        if version_id == BROKEN:
            raise AdapterDamaged("half of it is missing")
        if version_id == ELSEWHERE:
            raise BaseModelMismatch
        if version_id == ROOMLESS:
            raise CacheFull
        if version_id == REFUSED_BY_MACHINE:
            raise MachineRefused
        if version_id == ENDLESS:
            await asyncio.Event().wait()
        return 1

    async def stage(self, version_id: str, *, urgent: Urgency) -> int:
        return 1

    def abandon(self, version_id: str) -> None: ...

    async def drop(self, version_id: str) -> bool:
        return True

    async def erase(self, version_id: str) -> Removal:
        return Removal(named=True, host_bytes=1, slots_zeroed=0, workers=1)


class Engine:
    """Answers when told to; keeps vLLM's table of sequences as vLLM does."""

    def __init__(self) -> None:
        self.sequences = WatchedSequences()
        self.bodies: list[bytes] = []
        self.may_answer = asyncio.Event()
        self.is_read = asyncio.Event()
        self.is_read.set()
        self.ends_in: LorryError | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        whole, more = b"", True
        while more:
            message = await receive()
            whole, more = whole + message["body"], message["more_body"]
        self.bodies.append(whole)
        body = json.loads(whole)
        prompts = body.get("prompt", "") if isinstance(body, dict) else ""
        names = [f"{len(self.bodies)}-{n}" for n in range(len(prompts) if isinstance(prompts, list) else 1)]
        for name in names:
            self.sequences[name] = object()
        try:
            await self.may_answer.wait()
        finally:
            for name in names:
                self.sequences.pop(name)
        if self.ends_in is not None:
            status = refusal(self.ends_in).http_status
            await send({"type": "http.response.start", "status": status, "headers": [(b"a", b"b")]})
            await send({"type": "http.response.body", "body": b"vLLM's words"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await self.is_read.wait()
        await send({"type": "http.response.body", "body": b"answer"})


class Bench:
    def __init__(self, **limits: int) -> None:
        self.engine = Engine()
        self.waits: list[tuple[str, float]] = []
        self.refused: list[Exception] = []
        self.closed: LorryError | None = None
        host = Tier("host memory", max_bytes=10, max_entries=4)
        bounds = Limits(**{"slots": 1, "seats": 4, **limits})
        waits = self.waits

        class Noting(Observer):
            def admitted(self, kind: RequestClass, *, found: Found, wait_seconds: float) -> None:
                waits.append((kind, wait_seconds))

        self.pool = AdapterPool(
            Shelf(), limits=bounds, host=host, host_entries=4, host_live_entries=0, arrivals=2, observer=Noting()
        )
        self.admittance = Admittance(
            pool=self.pool,
            most_tokens=2048,
            deadline_seconds={"live": 0.2, "batch": 5.0},
            gate=self._gate,
            on_refused=self.refused.append,
        )
        self.crowd = self.admittance.crowd
        self.app = SimpleNamespace(state=SimpleNamespace(lorry_admittance=self.admittance))
        self.door = Door(self.engine)

    def _gate(self, version_id: str) -> None:
        if self.closed is not None:
            raise self.closed

    def ask(self, body: Any, *, path: str = "/v1/completions", **headers: str) -> Request:
        return Request(self, body if isinstance(body, bytes) else json.dumps(body).encode(), path, headers)


class Request:
    """One request under way."""

    def __init__(self, bench: Bench, body: bytes, path: str, headers: dict[str, str]) -> None:
        self.sent: list[Any] = []
        self.gone = asyncio.Event()
        self._pieces = [body[:5], body[5:]]
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": path, "headers": raw, "app": bench.app}
        self.task = asyncio.create_task(bench.door(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if self._pieces:
            return {"type": "http.request", "body": self._pieces.pop(0), "more_body": bool(self._pieces)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    async def answer(self) -> tuple[int, bytes, dict[bytes, bytes]]:
        await asyncio.wait_for(self.task, 60)
        return self.sent[0]["status"], self.sent[1]["body"], dict(self.sent[0]["headers"])


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_a_request_passes_with_its_body_whole_and_gives_everything_back(bench: Bench) -> None:
    bench.engine.may_answer.set()
    body = {"model": ADA, "prompt": "ä" * 100}
    assert (await bench.ask(body).answer())[:2] == (200, b"answer")
    assert json.loads(bench.engine.bodies[0]) == body
    assert bench.pool.slots.in_flight == frozenset()
    assert bench.waits == [("live", pytest.approx(0, abs=0.05))]


@pytest.mark.parametrize("body", [{"model": "base"}, {"model": 7}, {}, [], b'"text"'])
async def test_what_names_no_adapter_passes_without_a_lease(bench: Bench, body: Any) -> None:
    bench.engine.may_answer.set()
    bench.engine.sequences.clear()
    request = bench.ask({**body, "prompt": "x"} if isinstance(body, dict) else b'{"prompt": "x"}')
    assert (await request.answer())[0] == 200
    assert bench.waits == []


async def test_an_adapter_that_cannot_be_had_is_refused_with_the_reason(bench: Bench) -> None:
    status, body, headers = await bench.ask({"model": BROKEN}).answer()
    error = json.loads(body)["error"]
    assert (status, error["message"], error["param"]) == (502, "half of it is missing", "model")
    assert ASK_ANOTHER_HEADER not in headers
    assert bench.engine.bodies == []


async def test_a_refusal_of_another_bases_adapter_is_one_that_callers_know_from_others(bench: Bench) -> None:
    status, body, headers = await bench.ask({"model": ELSEWHERE}).answer()
    assert status == 409
    assert ASK_ANOTHER_HEADER not in headers
    with pytest.raises(BaseWithoutEngine):
        raise_for_status(httpx.Response(status, content=body))


@pytest.mark.parametrize("version_id", [ROOMLESS, REFUSED_BY_MACHINE])
async def test_what_this_machine_has_no_room_for_may_be_asked_of_another(bench: Bench, version_id: str) -> None:
    status, body, headers = await bench.ask({"model": version_id}).answer()
    assert (status, headers[ASK_ANOTHER_HEADER]) == (503, b"true")
    assert json.loads(body)["error"]["param"] is None  # nothing is wrong with the request


async def test_who_waits_too_long_is_told_when_to_come_back(bench: Bench) -> None:
    first = bench.ask({"model": ADA})
    await until(lambda: bool(bench.engine.sequences))
    status, _, headers = await bench.ask({"model": BOB}).answer()
    assert (status, int(headers[b"retry-after"]) >= 1) == (503, True)
    bench.engine.may_answer.set()
    assert (await first.answer())[0] == 200


async def test_a_full_queue_answers_429(bench: Bench) -> None:
    bench = Bench(queue=1)
    requests = [bench.ask({"model": ADA})]
    await until(lambda: bool(bench.engine.sequences))
    requests.append(bench.ask({"model": BOB}, x_lorry_class="batch"))
    await until(lambda: bench.pool.slots.queued("batch") == 1)
    status, body, headers = await bench.ask({"model": BOB}, x_lorry_class="batch").answer()
    assert (status, b"retry-after" in headers, json.loads(body)["error"]["type"]) == (429, True, "EngineBusy")
    bench.engine.may_answer.set()
    assert [(await request.answer())[0] for request in requests] == [200, 200]


async def test_every_refusal_is_told_once(bench: Bench) -> None:
    await bench.ask({"model": BROKEN}).answer()
    first = bench.ask({"model": ADA})
    await until(lambda: bool(bench.engine.sequences))
    await bench.ask({"model": BOB}).answer()
    bench.engine.may_answer.set()
    await first.answer()
    assert [type(error) for error in bench.refused] == [AdapterDamaged, AdmissionTimeout]


async def test_when_the_engine_stops_who_waits_or_loads_is_told_at_once_and_what_runs_goes_on(bench: Bench) -> None:
    running = bench.ask({"model": ADA})
    await until(lambda: bool(bench.engine.sequences))
    waiting, loading = bench.ask({"model": BOB}, x_lorry_class="batch"), bench.ask({"model": ENDLESS})
    await until(lambda: bench.pool.slots.queued("batch") == 1)
    bench.admittance.stop(EngineDraining(retry_after_seconds=1))
    bench.admittance.stop(EngineDraining(retry_after_seconds=1))
    for request in (waiting, loading, bench.ask({"model": ADA}), bench.ask({"model": "base"})):
        status, _, headers = await request.answer()
        assert (status, headers[b"retry-after"]) == (503, b"1")
    bench.engine.may_answer.set()
    assert (await running.answer())[0] == 200
    assert bench.pool.slots.in_flight == frozenset()


@pytest.mark.parametrize("name", ["Batch", "", "urgent"])
async def test_a_class_that_is_none_is_refused_by_its_name(bench: Bench, name: str) -> None:
    status, body, _ = await bench.ask({"model": ADA}, x_lorry_class=name).answer()
    error = json.loads(body)["error"]
    assert (status, error["param"]) == (422, "x-lorry-class")
    assert "live, batch" in error["message"]
    assert bench.engine.bodies == []
    assert [type(error) for error in bench.refused] == [OrderInvalid]


@pytest.mark.parametrize("model", [ADA, "base"])
async def test_a_drained_engine_refuses_everything_new_and_counts_who_is_inside(bench: Bench, model: str) -> None:
    running = bench.ask({"model": ADA})
    await until(lambda: bool(bench.engine.sequences))
    assert len(bench.crowd) == 1
    bench.pool.stop(EngineDraining(retry_after_seconds=1))
    status, body, headers = await bench.ask({"model": model}).answer()
    assert (status, headers[b"retry-after"], json.loads(body)["error"]["type"]) == (503, b"1", "EngineDraining")
    assert headers[ASK_ANOTHER_HEADER] == b"true"
    bench.engine.may_answer.set()
    assert (await running.answer())[0] == 200
    assert await bench.crowd.wait_until_empty(timeout_seconds=1)


async def test_an_engine_out_of_touch_sends_requests_on_at_once_even_for_what_it_holds(bench: Bench) -> None:
    running = bench.ask({"model": ADA})
    await until(lambda: bool(bench.engine.sequences))
    waiting = bench.ask({"model": BOB}, x_lorry_class="batch")
    await until(lambda: bench.pool.slots.queued("batch") == 1)
    bench.closed = EngineOutOfTouch()
    for model in (ADA, BOB):
        status, body, headers = await bench.ask({"model": model}).answer()
        assert (status, json.loads(body)["error"]["type"]) == (503, "EngineOutOfTouch")
        assert (headers[ASK_ANOTHER_HEADER], headers[b"retry-after"]) == (b"true", b"1")
    assert bench.pool.queued("live") == 0

    bench.engine.may_answer.set()
    assert (await running.answer())[0] == 200
    status, _, headers = await waiting.answer()  # its turn came when the gate was shut
    assert (status, headers[ASK_ANOTHER_HEADER]) == (503, b"true")
    assert len(bench.engine.bodies) == 1
    assert [type(error) for error in bench.refused] == [EngineOutOfTouch] * 3
    assert (await bench.ask({"model": "base", "prompt": ""}).answer())[0] == 200
    assert (bench.pool.slots.in_flight, bench.pool.leases("batch")) == (frozenset(), 0)


async def test_what_is_ended_while_it_runs_is_sent_on_like_what_never_began(bench: Bench) -> None:
    bench.engine.may_answer.set()
    bench.engine.ends_in = EngineOutOfTouch()
    status, body, headers = await bench.ask({"model": ADA}).answer()
    assert (status, body) == (503, b"vLLM's words")
    assert headers == {b"a": b"b", b"retry-after": b"1", ASK_ANOTHER_HEADER: b"true"}

    bench.engine.ends_in = AdapterDamaged("half of it is missing")
    assert (await bench.ask({"model": ADA}).answer())[2] == {b"a": b"b"}
    bench.engine.ends_in = None
    assert (await bench.ask({"model": ADA}).answer())[2] == {}


async def test_a_client_that_goes_away_while_it_waits_leaves_the_queue(bench: Bench) -> None:
    first = bench.ask({"model": ADA})
    await until(lambda: bool(bench.engine.sequences))
    waiting = bench.ask({"model": BOB}, x_lorry_class="batch")
    await until(lambda: bench.pool.slots.queued("batch") == 1)
    waiting.gone.set()
    await waiting.task
    assert (bench.pool.slots.queued("batch"), waiting.sent) == (0, [])
    bench.engine.may_answer.set()
    await first.answer()
    assert all(holding.leases == 0 for holding in bench.pool.holdings())


async def test_a_slow_reader_holds_no_slot(bench: Bench) -> None:
    bench.engine.may_answer.set()
    bench.engine.is_read.clear()
    slow = bench.ask({"model": ADA})
    await until(lambda: bool(slow.sent))
    assert bench.pool.slots.in_flight == frozenset()
    bench.engine.is_read.set()
    assert (await slow.answer())[0] == 200


async def test_every_prompt_of_a_completion_takes_a_seat(bench: Bench) -> None:
    request = bench.ask({"model": ADA, "prompt": ["a", "b", "c"]})
    await until(lambda: len(bench.engine.sequences) == 3)
    assert bench.pool.slots.seats_taken("live") == 3
    bench.engine.may_answer.set()
    await request.answer()
    assert bench.pool.slots.seats_taken("live") == 0


async def test_a_cancelled_request_gives_everything_back(bench: Bench) -> None:
    request = bench.ask({"model": ADA})
    await until(lambda: bool(bench.engine.sequences))
    request.task.cancel()
    await asyncio.gather(request.task, return_exceptions=True)
    assert (bench.pool.slots.in_flight, len(bench.engine.sequences)) == (frozenset(), 0)


async def test_a_body_without_end_is_refused(bench: Bench) -> None:
    status, _, _ = await bench.ask(b"x" * (9 << 20)).answer()
    assert status == 413


async def test_other_routes_pass_untouched(bench: Bench) -> None:
    bench.engine.may_answer.set()
    request = bench.ask({"model": ADA}, path="/lorry/anything")
    await request.answer()
    assert bench.waits == []


async def test_the_base_waits_for_seats_in_the_same_bounded_queue_and_takes_no_slot() -> None:
    bench = Bench(seats=1, queue=1)
    running = bench.ask({"model": "base"})
    await until(lambda: bool(bench.engine.sequences))
    waiting = bench.ask({"model": "base"}, x_lorry_class="batch")
    await until(lambda: bench.pool.queued("batch") == 1)
    status, _, headers = await bench.ask({"model": "base"}, x_lorry_class="batch").answer()
    assert (status, b"retry-after" in headers, bench.pool.slots.in_flight) == (429, True, frozenset())
    status, _, headers = await bench.ask({"model": ADA}).answer()  # its deadline holds behind the base, too
    assert (status, b"retry-after" in headers) == (503, True)
    bench.engine.may_answer.set()
    assert [(await request.answer())[0] for request in (running, waiting)] == [200, 200]
    assert [type(error) for error in bench.refused] == [EngineBusy, AdmissionTimeout]
    assert bench.pool.slots.seats_taken("live") == bench.pool.slots.seats_taken("batch") == 0


@pytest.mark.parametrize(("header", "waits"), [("0.05", True), ("nan", False), ("soon", False), ("1e9", False)])
async def test_who_asks_may_wait_shorter_than_the_engines_deadline_and_no_longer(header: str, waits: bool) -> None:
    bench = Bench(seats=1)
    running = bench.ask({"model": "base"})
    await until(lambda: bool(bench.engine.sequences))
    patient = bench.ask({"model": "base"}, x_lorry_class="batch", x_lorry_deadline=header)
    if waits:
        assert (await patient.answer())[0] == 503
    else:
        await until(lambda: bench.pool.queued("batch") == 1)
        await asyncio.sleep(0.1)
        assert bench.pool.queued("batch") == 1
        patient.gone.set()
    bench.engine.may_answer.set()
    assert (await running.answer())[0] == 200


@pytest.mark.parametrize("model", [ADA, "base"])
@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ({"n": "4"}, "live", "n must be a whole number"),
        ({"n": 2.0}, "live", "n must be a whole number"),
        ({"n": True}, "live", "n must be a whole number"),
        ({"n": 5}, "live", "may be 4 here"),
        ({"prompt": ["a", "b", "c"], "n": 2}, "live", "may be 4 here"),
        ({"prompt": [[1], [2], [3], [4]]}, "batch", "may be 3 here"),
    ],
)
async def test_more_sequences_than_the_class_has_seats_are_refused_and_so_is_what_cannot_be_counted(
    model: str, body: dict[str, Any], kind: str, says: str
) -> None:
    bench = Bench(live_seats=1)
    status, answer, _ = await bench.ask({"model": model, **body}, x_lorry_class=kind).answer()
    error = json.loads(answer)["error"]
    assert (status, error["param"], says in error["message"]) == (422, "n", True)
    assert bench.engine.bodies == []


@pytest.mark.parametrize(
    ("path", "limits", "tokens"),
    [
        ("/v1/completions", {}, 16),
        ("/v1/completions", {"max_tokens": 100, "n": 3}, 300),
        ("/v1/completions", {"max_tokens": "100"}, 2048),
        ("/v1/completions", {"max_tokens": 10**9}, 2048),
        ("/v1/completions", {"max_tokens": 100, "max_completion_tokens": 1}, 100),
        ("/v1/chat/completions", {}, 2048),
        ("/v1/chat/completions", {"max_tokens": None, "n": None}, 2048),
        ("/v1/chat/completions", {"max_tokens": 100}, 100),
        ("/v1/chat/completions", {"max_completion_tokens": 500}, 500),
        ("/v1/chat/completions", {"max_completion_tokens": 500, "n": 4}, 2000),
    ],
)
async def test_a_turn_is_charged_with_all_that_vllm_may_compute(path: str, limits: dict[str, Any], tokens: int) -> None:
    bench, charged = Bench(), list[int]()
    enter = bench.pool.enter

    async def noting(ticket: Ticket, **more: Any) -> Callable[[], None]:
        charged.append(ticket.tokens)
        return await enter(ticket, **more)

    bench.pool.enter = noting  # type: ignore[method-assign]
    bench.engine.may_answer.set()
    body = json.dumps({"model": ADA, "prompt": "x" * 400, **limits}).encode()
    await bench.ask(body, path=path).answer()
    assert charged == [len(body) // 4 + tokens]


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"model": ', b"null"])
async def test_what_is_no_request_is_vllms_to_answer(bench: Bench, body: bytes) -> None:
    passed: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(await receive())

    bench.door = Door(app)
    await bench.ask(body).task
    assert [message["body"] for message in passed] == [body]


async def test_nothing_runs_on_a_request_that_only_vllm_understood(bench: Bench) -> None:
    started: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.append("app")
        bench.engine.sequences["without a lease"] = object()
        started.append("sequence")

    bench.door = Door(app)
    with pytest.raises(GracefulHTTPError, match="more than it was admitted for"):
        await bench.ask(b"not json").task
    assert (started, bench.engine.sequences) == (["app"], {})


async def test_a_503_says_when_to_come_back_even_if_nobody_knows(bench: Bench) -> None:
    async def closed(ticket: Ticket, **more: Any) -> Callable[[], None]:
        raise EngineOutOfTouch

    bench.pool.enter = closed  # type: ignore[method-assign]
    status, _, headers = await bench.ask({"model": ADA}).answer()
    assert (status, headers[b"retry-after"]) == (503, b"1")


async def test_a_beam_search_holds_its_adapter_until_it_is_answered(bench: Bench) -> None:
    async def waves(scope: Any, receive: Any, send: Any) -> None:
        for wave in range(5):
            for beam in range(2):
                bench.engine.sequences[f"{wave}-{beam}"] = object()
            await asyncio.sleep(0)
            for beam in range(2):
                bench.engine.sequences.pop(f"{wave}-{beam}")
            assert bench.pool.leases("live") == 1, wave
        await bench.engine(scope, receive, send)

    bench.engine.may_answer.set()
    bench.door = Door(waves)
    assert (await bench.ask({"model": ADA, "n": 2, "use_beam_search": True}).answer())[0] == 200
    assert bench.pool.slots.in_flight == frozenset()


async def test_a_request_that_is_cancelled_twice_loses_nothing_that_it_was_granted_meanwhile(bench: Bench) -> None:
    granted = asyncio.Event()

    async def stubborn(ticket: Ticket, **more: Any) -> Callable[[], None]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # it is granted at the moment of the cancellation
        return granted.set

    bench.pool.enter = stubborn  # type: ignore[method-assign]
    request = bench.ask({"model": ADA})
    await settle()
    request.task.cancel()
    await asyncio.sleep(0)
    request.task.cancel()
    await asyncio.gather(request.task, return_exceptions=True)
    await asyncio.wait_for(granted.wait(), 30)


def released(calls: list[str]) -> Callable[[], None]:
    return lambda: calls.append("released")


def test_a_hold_ends_with_the_last_of_the_expected_sequences() -> None:
    calls: list[str] = []
    sequences = WatchedSequences()
    with Hold(released(calls), expected=2).during():
        sequences["a"] = sequences["b"] = object()
        sequences["a"] = object()  # an update is no entry
        sequences.pop("a")
        assert calls == []
        sequences.pop("b")
        assert calls == ["released"]
    assert sequences.pop("b", None) is None
    assert calls == ["released"]


def test_a_hold_outlasts_its_answer_while_the_engine_still_runs() -> None:
    calls: list[str] = []
    sequences = WatchedSequences()
    with Hold(released(calls), expected=5).during():
        sequences["a"] = object()
    assert calls == []
    sequences.pop("a")
    assert calls == ["released"]


def test_a_sequence_that_comes_after_the_hold_ended_is_refused_and_not_run() -> None:
    calls: list[str] = []
    sequences = WatchedSequences()
    with Hold(released(calls), expected=1).during():
        sequences["a"] = object()
        sequences.pop("a")
        with pytest.raises(GracefulHTTPError, match="more than it was admitted for"):
            sequences["b"] = object()
    assert (sequences, calls) == ({}, ["released"])


def test_a_request_that_never_reached_the_engine_holds_nothing() -> None:
    calls: list[str] = []
    with pytest.raises(ValueError, match="refused"), Hold(released(calls), expected=1).during():
        raise ValueError("refused")
    assert calls == ["released"]


async def test_sequences_of_other_requests_are_not_counted() -> None:
    calls: list[str] = []
    sequences = WatchedSequences()

    async def other(action: Callable[[], Any]) -> None:
        action()

    outside: Awaitable[None] = asyncio.create_task(other(lambda: sequences.__setitem__("theirs", object())))
    await outside
    with Hold(released(calls), expected=1).during():
        sequences.pop("theirs")
        assert calls == []
    assert calls == ["released"]
