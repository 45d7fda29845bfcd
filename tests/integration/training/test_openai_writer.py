from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.claude_server import Failure
from tests.support.openai_server import OpenAIServer
from tests.support.registry_server import serving
from tests.support.writers import again, conversations, finish, settings
from training.config import DatasetConfig
from training.errors import WriterFailed, WriterRefused, WriterTooExpensive, WriterUnavailable
from training.writers.factory import make_writer
from training.writers.spool import DirectorySpool
from training.writers.writer import QuestionWriter, Written
from transcripts.redaction import Redactor

CONFIG = DatasetConfig(writer="openai", pairs=200)
KEPT = conversations()


@pytest.fixture
def server() -> OpenAIServer:
    return OpenAIServer()


@pytest.fixture
async def url(server: OpenAIServer) -> AsyncIterator[str]:
    async with serving(server.app()) as address:
        yield f"{address}/v1"


def make(url: str, **changed: Any) -> QuestionWriter:
    return make_writer(settings(url, writer_model="local-model", **changed), CONFIG)


async def write(writer: QuestionWriter) -> Written:
    return await writer.collect(await finish(writer, await writer.begin(KEPT), KEPT), KEPT)


async def test_every_request_is_answered_once_with_structured_output(server: OpenAIServer, url: str) -> None:
    written = await write(make(url))
    assert written.examples
    assert set(server.paid.values()) == {1}
    assert {body["response_format"]["type"] for body in server.bodies} == {"json_schema"}
    assert all(body["response_format"]["json_schema"]["strict"] for body in server.bodies)
    assert written.cost.usage.output_tokens == 300 * len(server.bodies)
    assert written.cost.dollars is None
    assert written.writer == "openai/1:local-model"


@pytest.mark.parametrize("known", [("json_object", "text"), ("text",)])
async def test_an_endpoint_without_structured_output_is_asked_for_plain_json(
    server: OpenAIServer, url: str, known: tuple[str, ...]
) -> None:
    server.formats = known
    writer = make(url)
    state = await writer.begin(KEPT)
    refused = server.calls - len(server.bodies)
    written = await writer.collect(await finish(writer, again(state), KEPT), KEPT)
    assert written.examples
    assert refused == 3 - len(known)
    assert server.calls - len(server.bodies) == refused  # what it does not know is remembered in the state
    assert "JSON object of this schema" in server.bodies[0]["messages"][1]["content"]


async def test_a_service_that_names_the_limit_otherwise_is_asked_in_its_words(server: OpenAIServer, url: str) -> None:
    server.limit = "max_completion_tokens"
    written = await write(make(url, writer_attempts=1))
    assert written.examples
    assert server.calls == len(server.bodies) + 1, "it is refused once, not each time"
    assert all("max_tokens" not in body for body in server.bodies)
    assert {body["response_format"]["type"] for body in server.bodies} == {"json_schema"}


async def test_an_answer_in_a_code_fence_is_read(server: OpenAIServer, url: str) -> None:
    good = server.answer
    server.answer = lambda body: f"```json\n{good(body)}\n```"
    assert (await write(make(url))).examples


async def test_requests_are_made_side_by_side_and_no_more_than_allowed(server: OpenAIServer, url: str) -> None:
    server.seconds = 0.02
    await write(make(url, writer_concurrency=3))
    assert server.most_at_once == 3


@pytest.mark.parametrize(
    "failure",
    [
        Failure(status=429, headers={"retry-after": "0"}),
        Failure(status=500),
        Failure(status=503),
        Failure(cut=True),
    ],
    ids=["429", "500", "503", "cut"],
)
async def test_what_passes_is_tried_again(server: OpenAIServer, url: str, failure: Failure) -> None:
    server.failures.extend([failure] * 3)
    written = await write(make(url))
    assert written.examples
    assert set(server.paid.values()) == {1}


async def test_a_service_that_never_answers_is_left_for_later_with_the_state_as_it_was(
    server: OpenAIServer, url: str
) -> None:
    writer = make(url, writer_attempts=2)
    state = await writer.begin(KEPT)
    server.fails = lambda body: Failure(status=500)
    with pytest.raises(WriterUnavailable, match="500"):
        await writer.poll(state, KEPT)
    server.fails = lambda body: None
    assert (await finish(writer, state, KEPT)).written


async def test_a_part_that_was_not_answered_is_asked_again_and_no_other(server: OpenAIServer, url: str) -> None:
    left = [4]

    def fails(body: dict[str, Any]) -> Failure | None:
        if "yes or no" in body["messages"][1]["content"] and left[0]:
            left[0] -= 1
            return Failure(status=500)
        return None

    writer = make(url, writer_attempts=1)
    state = await writer.begin(KEPT)
    server.fails = fails
    for _ in range(40):
        if state.written:
            break
        try:
            state = await writer.poll(state, KEPT)
        except WriterUnavailable:
            continue
    assert state.written
    assert not state.named("given_up")
    assert set(server.paid.values()) == {1}


async def test_a_request_that_is_refused_is_given_up_and_the_others_go_on(server: OpenAIServer, url: str) -> None:
    writer = make(url)
    state = await writer.begin(KEPT)
    marked = conversations()[20].turns[1].text
    server.fails = lambda body: Failure(status=413) if marked in body["messages"][1]["content"] else None
    state = await finish(writer, state, KEPT)
    assert {item.reason for item in state.items.values() if item.outcome == "given_up"} == {"refused"}
    assert len(state.named("given_up")) == 2
    reasons = {each.reason: each.count for each in (await writer.collect(state, KEPT)).dropped}
    assert reasons["request_refused"] == 2


@pytest.mark.parametrize(
    "reply",
    [
        {},
        [],
        "text",
        {"choices": []},
        {"choices": [{"message": {"content": None}}]},
        {"choices": [{"message": {"content": "no JSON"}}], "usage": {"prompt_tokens": "many"}},
        {"choices": [{"message": {"content": '{"pairs": {}}'}}]},
        {"choices": [{"message": {"content": "[" * 100_000}}]},
    ],
    ids=["empty", "list", "string", "no choice", "null", "not JSON", "not a list", "deep"],
)
async def test_replies_of_another_form_stop_the_sample(server: OpenAIServer, url: str, reply: Any) -> None:
    server.reply = lambda body: reply
    with pytest.raises(WriterFailed, match="no sample was answered usefully"):
        await make(url).begin(KEPT)


async def test_an_answer_that_was_cut_off_is_asked_again_so_often(server: OpenAIServer, url: str) -> None:
    writer = make(url, writer_rounds=2)
    state = await writer.begin(KEPT)
    server.finish_reason = "length"
    server.answer = lambda body: '{"pairs": [{"question": "Wh'
    state = await finish(writer, state, KEPT)
    assert {item.reason for item in state.items.values() if item.outcome == "given_up"} == {"cut_off"}
    assert max(server.paid.values()) == 2
    with pytest.raises(WriterFailed, match="request_cut_off"):
        await writer.collect(state, KEPT)


async def test_a_process_killed_between_answer_and_state_does_not_buy_the_answer_again(
    server: OpenAIServer, url: str, tmp_path: Path
) -> None:
    def process() -> QuestionWriter:
        spool = DirectorySpool(tmp_path / "spool")
        return make_writer(settings(url, writer_model="local-model"), CONFIG, spool=spool)

    state = await process().begin(KEPT)
    await process().poll(state, KEPT)  # answered, and killed before the state was kept
    state = await finish(process(), state, KEPT)
    assert set(server.paid.values()) == {1}
    assert state.spent.usage.requests == len(state.items)
    assert (await process().discard(state)).discarded
    assert not (tmp_path / "spool").exists()


async def test_the_estimate_sends_nothing(server: OpenAIServer, url: str) -> None:
    estimate = await make(url).estimate(KEPT)
    assert server.calls == 0
    assert estimate.usage.input_tokens > 0
    with pytest.raises(WriterTooExpensive, match="no price is known"):
        await make(url, writer_max_dollars=1).begin(KEPT)
    assert server.calls == 0


async def test_ones_own_price_table_counts(server: OpenAIServer, url: str, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("as_of: 2026-11-01\nsource: a contract\nmodels:\n  local-model: {input: 1.0, output: 10.0}\n")
    written = await write(make(url, writer_prices_file=prices))
    assert written.cost.dollars == pytest.approx(len(server.bodies) * (1000 * 1.0 + 300 * 10.0) / 1e6)
    assert (written.cost.prices_as_of, written.cost.prices_source) == ("2026-11-01", "a contract")


@pytest.mark.parametrize(
    ("changed", "field"),
    [({"writer_url": None}, "LORRY_WRITER_URL"), ({"writer_model": None}, "LORRY_WRITER_MODEL")],
)
def test_what_is_missing_is_named(changed: dict[str, Any], field: str) -> None:
    given = {"writer_model": "local-model", **changed}
    with pytest.raises(WriterRefused, match=field):
        make_writer(settings("http://127.0.0.1:9/v1").model_copy(update=given), CONFIG)


async def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(WriterRefused, match="LORRY_WRITER_URL"):
        await make("somewhere/v1").begin(KEPT)


async def test_no_secret_leaves_the_machine(server: OpenAIServer, url: str) -> None:
    kept = conversations(secret=" write to ada.lovelace@example.org now")
    writer = make_writer(settings(url, writer_model="m"), CONFIG, redactor=Redactor())
    await finish(writer, await writer.begin(kept), kept)
    assert "ada.lovelace" not in json.dumps(server.bodies)
