"""`lorry.client` against a real gateway: both clients say the same, and what passes by itself is tried again."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from kit.database import Database
from lorry.client import (
    AsyncClient,
    Client,
    Conflict,
    Forbidden,
    Invalid,
    NotAnswered,
    NotFound,
    RateLimited,
    Refused,
    Transcript,
    Turn,
    Unauthenticated,
    Unavailable,
)
from serving.gateway.repository import TenantLimit, TenantLimitRepository
from tests.support.clients import in_thread
from tests.support.gateway_server import Gateway, StandInEngine
from tests.support.waiting import until
from training.jobs.record.repository import RecordRepository
from training.jobs.states import Stage

ANN = [Turn(role="other", text="What do you drink?"), Turn(role="user", text="I love green tea")]


async def test_both_clients_put_ask_and_read_the_same(
    gateway: Gateway, lorry: AsyncClient, stand_in: StandInEngine
) -> None:
    stand_in.answer = lambda body: json.dumps({"answers": ["I love green tea"]}) if "response_format" in body else "tea"
    today = datetime.now(UTC).date()
    await gateway.publish("ann")
    await gateway.say("ann", *["I love green tea, and you?"] * 3)
    transcript = Transcript(name="chat 1".replace(" ", "-"), title="Tea", turns=ANN)
    transcript_id = await lorry.put_transcript("ann", transcript)
    assert await in_thread(gateway, lambda client: client.put_transcript("ann", transcript)) == transcript_id
    assert (await lorry.get_transcript("ann", "chat-1")).turns == ANN
    profile = await lorry.extract_profile("ann")
    assert (profile.adapter_version, profile.document["user"]) == (1, "ann")

    def blocking(client: Client) -> list[Any]:
        return [
            client.query("ann", "?"),
            client.chat("ann", [{"role": "user", "content": "?"}], max_tokens=5),
            client.get_profile("ann"),
            client.get_profile_page("ann"),
            list(client.list_transcripts("ann")),
            client.get_transcript("ann", transcript_id),
        ]

    awaited: list[Any] = [
        await lorry.query("ann", "?"),
        await lorry.chat("ann", [{"role": "user", "content": "?"}], max_tokens=5),
        await lorry.get_profile("ann"),
        await lorry.get_profile_page("ann"),
        [head async for head in lorry.list_transcripts("ann")],
        await lorry.get_transcript("ann", transcript_id),
    ]
    assert await in_thread(gateway, blocking) == awaited
    answer, chat, read, page, heads, _ = awaited
    assert (answer.answer, answer.adapter.version, chat.text, chat.adapter_version) == ("tea", 1, "tea", 1)
    assert read == profile
    assert page.startswith("# Profile of ann")
    assert len(heads) == 2
    await lorry.delete_transcript("ann", "chat-1")

    async def is_written() -> bool:
        return sum([row.requests async for row in lorry.usage(since=today)]) >= 5

    await until(is_written)
    await asyncio.sleep(0.1)  # what was counted too often would be written now
    assert [(row.user_id, row.requests) async for row in lorry.usage(since=today)] == [("ann", 5)]
    assert await in_thread(gateway, lambda client: [row.requests for row in client.usage(by="day")]) == [5]


async def test_an_answer_is_streamed_and_whole_at_the_end(gateway: Gateway, lorry: AsyncClient) -> None:
    await gateway.publish("ann")
    async with lorry.stream_query("ann", "?") as stream:
        pieces = [piece async for piece in stream]
    assert pieces == ["word0 ", "word1 ", "word2 "]
    assert stream.answer is not None
    assert (stream.answer.answer, stream.answer.adapter and stream.answer.adapter.version) == ("word0 word1 word2 ", 1)

    def blocking(client: Client) -> Any:
        with client.stream_query("ann", "?") as stream:
            return list(stream), stream.answer

    assert await in_thread(gateway, blocking) == (pieces, stream.answer)


async def test_a_stream_that_breaks_off_raises_what_was_told_and_one_that_is_left_frees_the_engine(
    gateway: Gateway, lorry: AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.break_off_after = 1
    pieces: list[str] = []

    async def listen() -> None:
        async with lorry.stream_query("ann", "?") as stream:
            async for piece in stream:
                pieces.append(piece)

    with pytest.raises(Unavailable) as broken:
        await listen()
    assert (pieces, broken.value.code) == (["word0 "], "engine-unavailable")
    stand_in.break_off_after, stand_in.seconds_between_events, stand_in.events = None, 0.05, 1000
    async with lorry.stream_query("ann", "?") as stream:
        await anext(aiter(stream))
        assert stand_in.running == 1
    await until(lambda: not stand_in.running)


async def test_many_transcripts_are_sent_in_pieces_and_refusals_are_numbered_over_all(lorry: AsyncClient) -> None:
    long = "tea " * 200_000
    transcripts = [
        Transcript(name=f"t{number}", turns=[Turn(role="user", text=f"{number} {long}")]) for number in range(12)
    ]
    transcripts[10] = Transcript(name="no name!", turns=ANN)
    result = await lorry.put_transcripts("ann", transcripts)
    assert (result.created, result.known, result.refused_count) == (11, 0, 1)
    assert (result.refused[0].line, result.refused[0].field) == (11, "id")
    assert len([head async for head in lorry.list_transcripts("ann")]) == 11
    assert (await lorry.put_transcripts("ann", [])).created == 0


async def test_trainings_are_submitted_watched_and_cancelled(gateway: Gateway, lorry: AsyncClient) -> None:
    await gateway.say("ann", *[f"I love boat number {number}" for number in range(20)])
    training = await lorry.submit_training("ann", settings={"steps": 3}, why="asked for")
    with pytest.raises(Conflict) as refused:
        await lorry.submit_training("ann")
    assert refused.value.problem["job_id"] == training.id
    assert [each.id async for each in lorry.list_trainings(user="ann", states=["queued"])] == [training.id]

    async def watch() -> list[str]:
        return [event.name async for event in lorry.watch_training(training.id)]

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.2)
    assert (await lorry.trainings.pause(training.id)).state == "paused"
    assert (await lorry.trainings.resume(training.id)).state == "queued"
    assert (await lorry.cancel_training(training.id)).state == "canceled"
    names = await asyncio.wait_for(watching, 120)
    assert (names[0], names[-1]) == ("event", "end")
    assert (await lorry.get_training(training.id)).ended
    assert (await lorry.trainings.retry(training.id)).state == "queued"


async def test_a_training_tells_what_is_kept_of_its_dataset(
    gateway: Gateway, lorry: AsyncClient, database: Database
) -> None:
    await gateway.say("ann", *[f"I love boat number {number}" for number in range(20)])
    training = await lorry.submit_training("ann")
    assert (await lorry.get_training(training.id)).dataset is None
    found = {"digest": "d", "counts": {"train": 2}, "redacted": {"email": 1}, "quality": {"kept": 2}}
    async with database.transaction() as session:
        await RecordRepository(session).add_stage(training.id, Stage.DATASET, result=found, seconds=1.0)
    assert (await lorry.get_training(training.id)).dataset == found
    assert (await in_thread(gateway, lambda client: client.get_training(training.id))).dataset == found


async def test_refusals_are_exceptions_that_say_what_the_gateway_said(gateway: Gateway, lorry: AsyncClient) -> None:
    with pytest.raises(NotFound, match="neither transcripts nor an adapter") as missing:
        await lorry.query("nobody", "?")
    assert (missing.value.status, missing.value.code, missing.value.field) == (404, "unknown-user", "user_id")
    assert missing.value.request_id
    await gateway.say("ann", "hello there")
    with pytest.raises(Conflict) as conflict:
        await lorry.query("ann", "?")
    assert (conflict.value.code, conflict.value.problem["transcripts"]) == ("no-adapter", 1)
    with pytest.raises(Invalid) as invalid:
        await lorry.query("ann", "")
    assert invalid.value.problem["errors"][0]["field"] == "body.question"
    async with AsyncClient(url=gateway.url, key=await gateway.make_key("chat")) as narrow:
        with pytest.raises(Forbidden, match="query"):
            await narrow.query("ann", "?")
    async with AsyncClient(url=gateway.url, key="lorry_" + "x" * 43) as stranger:
        with pytest.raises(Unauthenticated):
            await stranger.query("ann", "?")


async def test_what_passes_is_tried_again_and_asked_of_the_engine_once(
    gateway: Gateway, lorry: AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.refuse_with, stand_in.retry_after = (503, "busy"), "0"
    asking = asyncio.create_task(lorry.query("ann", "?"))
    await until(lambda: len(stand_in.requests) >= 1)
    stand_in.refuse_with = None
    assert (await asking).answer == "you said ?"
    async with gateway.database.transaction() as session:
        await TenantLimitRepository(session).put("default", TenantLimit(requests_per_second=1.0, burst=1))
    async with AsyncClient(url=gateway.url, key=gateway.key, attempts=1) as hasty:
        with pytest.raises(RateLimited) as refused:
            await asyncio.gather(*(hasty.query("ann", "?") for _ in range(3)))
    assert refused.value.retry_after_seconds == 1
    assert (await lorry.query("ann", "?")).answer == "you said ?", "it waited as long as it was told"


async def test_an_answer_that_was_lost_is_asked_for_again_and_not_done_twice(
    gateway: Gateway, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")

    class Lossy(httpx.AsyncBaseTransport):
        """Loses the first answer on its way back."""

        def __init__(self) -> None:
            self._inner = httpx.AsyncHTTPTransport()
            self.lost = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await self._inner.handle_async_request(request)
            if not self.lost:
                self.lost += 1
                await response.aread()
                raise httpx.ReadError("the network went away", request=request)
            return response

        async def aclose(self) -> None:
            await self._inner.aclose()

    async with AsyncClient(url=gateway.url, key=gateway.key, transport=Lossy()) as lorry:
        assert (await lorry.query("ann", "?")).answer == "you said ?"
    assert len(stand_in.requests) == 1


async def test_nobody_there_is_not_answered_and_a_deadline_goes_along(
    gateway: Gateway, stand_in: StandInEngine
) -> None:
    async with AsyncClient(url="http://127.0.0.1:9", key="k", attempts=2) as lorry:
        with pytest.raises(NotAnswered):
            await lorry.query("ann", "?")
    await gateway.publish("ann")
    stand_in.seconds_between_events = 20
    async with AsyncClient(url=gateway.url, key=gateway.key, deadline_seconds=0.3, attempts=1) as lorry:
        with pytest.raises(Refused) as late:
            await lorry.query("ann", "?")
    assert late.value.status == 504


async def test_who_may_not_read_what_was_extracted_is_told_so_by_either_client(
    gateway: Gateway, stand_in: StandInEngine
) -> None:
    stand_in.answer = lambda body: json.dumps({"answers": ["I love green tea"]}) if "response_format" in body else "tea"
    await gateway.publish("ann")
    await gateway.say("ann", "I love green tea")
    key = await gateway.make_key("profiles:write")

    def extract() -> Any:
        with Client(url=gateway.url, key=key) as client:
            return client.extract_profile("ann")

    with pytest.raises(Forbidden, match="profiles:read"):
        await asyncio.to_thread(extract)
    async with AsyncClient(url=gateway.url, key=key) as client:
        with pytest.raises(Forbidden, match="extracted and kept") as refused:
            await client.extract_profile("ann")
    assert (refused.value.code, refused.value.problem["scope"]) == ("scope-missing", "profiles:read")
    async with AsyncClient(url=gateway.url, key=gateway.key) as client:
        assert (await client.get_profile("ann")).document["user"] == "ann"
