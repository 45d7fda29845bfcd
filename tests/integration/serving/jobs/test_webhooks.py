"""Webhooks over real HTTP: signed, tried again, given up, never redirected."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import text

from kit.background import again_and_again
from serving.jobs.errors import TooManyBatches, TooManyUsers, WebhookFailed, WebhookRefused, WebhooksNotSetUp
from serving.jobs.limits import TenantLimits
from serving.jobs.states import DeliveryState
from serving.jobs.webhooks import deliveries, places
from serving.jobs.webhooks.deliveries import Deliveries
from serving.jobs.webhooks.secrets import WebhookSecrets
from serving.jobs.webhooks.sender import WebhookSender
from serving.jobs.webhooks.signature import verify
from tests.support.extraction_jobs import Mill
from tests.support.registry_server import serving


@dataclass
class Receiver:
    """A tenant's service, which answers as it is told and remembers what it got."""

    status: Callable[[int], int] = lambda attempt: 204
    seconds: float = 0.0
    waits_for: asyncio.Event | None = None
    url: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/hook", self.take, methods=["POST"], response_model=None)
        app.add_api_route("/elsewhere", self.redirect, methods=["POST"], response_model=None)
        return app

    async def take(self, request: Request) -> Response:
        self.got.append((dict(request.headers), await request.body()))
        await asyncio.sleep(self.seconds)
        if self.waits_for is not None:
            await self.waits_for.wait()
        return Response(status_code=self.status(len(self.got)))

    async def redirect(self) -> Response:
        return RedirectResponse("/hook")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with serving(receiver.app()) as url:
        receiver.url = url
        yield receiver


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow one another quickly."""
    monkeypatch.setattr(deliveries, "_BASE_SECONDS", 0.05)
    monkeypatch.setattr(deliveries, "_MAX_SECONDS", 0.1)


async def until_told(mill: Mill, batch_id: str, state: DeliveryState) -> None:
    async def told() -> bool:
        webhook = (await mill.get(batch_id)).webhook
        return webhook is not None and webhook.state is state

    await mill.until(told, what=f"a webhook that is {state}")


async def test_the_end_of_a_batch_is_told_once_signed_and_without_anybodys_name(mill: Mill, receiver: Receiver) -> None:
    await mill.add_users("ann")
    batch = await mill.submit("ann", "nobody", webhook=f"{receiver.url}/hook")
    async with mill.working() as worker:
        await mill.until_ended(batch.id)
        await until_told(mill, batch.id, DeliveryState.DELIVERED)
        await asyncio.sleep(0.3)
        exposed = (await worker.metrics.render(mill.database)).decode()
    ((headers, body),) = receiver.got
    secret = await WebhookSecrets(mill.database, mill.batch_settings).show("default")
    assert verify(headers["x-lorry-signature"], secret=secret, body=body, now=time.time())
    assert headers["x-lorry-delivery"] == batch.id
    assert headers["host"] == receiver.url.removeprefix("http://")
    told = json.loads(body)
    assert (told["type"], told["id"], told["state"]) == ("extraction.ended", batch.id, "done")
    assert (told["users"], told["done"], told["failed"], told["canceled"]) == (2, 1, 1, 0)
    assert b"ann" not in body
    assert 'lorry_extraction_webhooks_total{outcome="delivered"} 1.0' in exposed


@pytest.mark.usefixtures("hurried")
async def test_a_receiver_that_fails_is_told_again_with_the_same_delivery_and_a_new_signature(
    mill: Mill, receiver: Receiver
) -> None:
    await mill.add_users("ann")
    receiver.status = lambda attempt: 500 if attempt < 3 else 200
    batch = await mill.submit("ann", webhook=f"{receiver.url}/hook")
    async with mill.working():
        await until_told(mill, batch.id, DeliveryState.DELIVERED)
    assert [headers["x-lorry-attempt"] for headers, _ in receiver.got] == ["1", "2", "3"]
    assert {headers["x-lorry-delivery"] for headers, _ in receiver.got} == {batch.id}
    assert len({body for _, body in receiver.got}) == 1


@pytest.mark.usefixtures("hurried")
async def test_a_receiver_that_never_takes_it_is_given_up_with_the_reason(mill: Mill, receiver: Receiver) -> None:
    await mill.add_users("ann")
    batch = await mill.submit("ann", webhook=f"{receiver.url}/elsewhere")
    async with mill.working(extraction_webhook_attempts=2):
        await until_told(mill, batch.id, DeliveryState.GIVEN_UP)
    found = (await mill.get(batch.id)).webhook
    assert found is not None
    assert (found.attempts, found.problem) == (2, "the receiver answered 307: redirections are not followed")
    assert receiver.got == []


async def test_a_canceled_batch_is_told_too(mill: Mill, receiver: Receiver) -> None:
    await mill.add_users("ann")
    batch = await mill.submit("ann", webhook=f"{receiver.url}/hook")
    await mill.batches.cancel(batch.id, tenant="default")
    async with mill.working():
        await until_told(mill, batch.id, DeliveryState.DELIVERED)
    assert json.loads(receiver.got[0][1])["state"] == "canceled"


async def test_a_slow_receiver_holds_up_no_other(mill: Mill, receiver: Receiver) -> None:
    await mill.add_users("ann")
    quick = Receiver()
    receiver.seconds = 3.0
    async with serving(quick.app()) as url:
        slow_batch = await mill.submit("ann", webhook=f"{receiver.url}/hook")
        quick_batch = await mill.submit("ann", webhook=f"{url}/hook")
        async with mill.working(extraction_webhook_timeout_seconds=1.0):
            await until_told(mill, quick_batch.id, DeliveryState.DELIVERED)
            await mill.until(lambda: _problem(mill, slow_batch.id, "longer than 1 s"), what="the time-out")


@pytest.fixture
async def dead(receiver: Receiver) -> AsyncIterator[Receiver]:
    """A receiver that takes messages and does not answer while the test runs; it goes by several names."""
    receiver.waits_for = asyncio.Event()
    try:
        yield receiver
    finally:
        receiver.waits_for.set()


def named(receiver: Receiver, host: str) -> str:
    return receiver.url.replace("127.0.0.1", host) + "/hook"


async def ended(mill: Mill, url: str, *, tenant: str = "default", times: int = 1) -> list[str]:
    """Have batches end whose receiver is to be told; return their ids."""
    batches = [await mill.submit("ann", tenant=tenant, webhook=url) for _ in range(times)]
    for batch in batches:
        await mill.batches.cancel(batch.id, tenant=tenant)
    return [batch.id for batch in batches]


async def delivered(mill: Mill, batch_id: str, *, tenant: str) -> bool:
    webhook = (await mill.batches.get(batch_id, tenant=tenant)).webhook
    return webhook is not None and webhook.state is DeliveryState.DELIVERED


@asynccontextmanager
async def delivering(mill: Mill) -> AsyncIterator[None]:
    """Deliver in a worker's way while the block runs; what is under way then is let go of."""
    patient = mill.worker_settings(extraction_webhook_timeout_seconds=120.0)  # a receiver that hangs keeps its place
    sender = Deliveries(patient, database=mill.database)
    task = asyncio.create_task(again_and_again(sender.deliver_due, 0.05, of="test"))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_dead_receiver_has_two_places_whoever_calls_it_and_no_other_waits_for_it(
    mill: Mill, dead: Receiver
) -> None:
    for tenant in ("a", "b", "c", "d"):
        await ended(mill, f"{dead.url.upper().replace('HTTP', 'http')}/hook?{tenant}", tenant=tenant, times=5)
    quick = Receiver()
    async with serving(quick.app()) as url, delivering(mill):
        await mill.until(lambda: len(dead.got) == 2, what="two messages at the dead receiver")
        mine = await ended(mill, url.replace("127.0.0.1", "localhost") + "/hook", tenant="e", times=20)
        await mill.until(lambda: len(quick.got) == 20, what="every message to another receiver")
        await mill.until(lambda: delivered(mill, mine[-1], tenant="e"), what="the last one's delivery")
        assert len(dead.got) == 2


async def test_a_tenant_whose_receivers_are_dead_has_four_places_however_many_receivers(
    mill: Mill, dead: Receiver
) -> None:
    for host in ("127.0.0.1", "localhost", "127.1", "2130706433"):
        await ended(mill, named(dead, host), times=4)
    quick = Receiver()
    async with serving(quick.app()) as url, delivering(mill):
        await mill.until(lambda: len(dead.got) == 4, what="four messages of the tenant")
        (theirs,) = await ended(mill, url.replace("127.0.0.1", "127.0.1") + "/hook", tenant="other")
        await mill.until(lambda: delivered(mill, theirs, tenant="other"), what="another tenant's delivery")
        assert len(dead.got) == 4
        assert dead.waits_for is not None
        dead.waits_for.set()
        await mill.until(lambda: len(dead.got) == 16, what="all messages of the first tenant")


async def test_whose_messages_are_not_under_way_comes_before_those_whose_are(
    mill: Mill, dead: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "AT_ONCE", 2)
    await ended(mill, named(dead, "127.0.0.1"), tenant="many", times=3)
    await ended(mill, named(dead, "localhost"), tenant="many", times=3)
    await ended(mill, named(dead, "127.1") + "?late", tenant="one")
    async with delivering(mill):
        await mill.until(lambda: len(dead.got) == 2, what="two messages")
    assert sorted(headers["host"].partition(":")[0] for headers, _ in dead.got) in (
        ["127.0.0.1", "127.1"],
        ["127.1", "localhost"],
    )


async def test_a_message_is_let_go_of_with_its_worker_and_due_again_after_the_time_that_a_try_may_take(
    mill: Mill, dead: Receiver
) -> None:
    (batch_id,) = await ended(mill, named(dead, "127.0.0.1"))
    async with delivering(mill):
        await mill.until(lambda: len(dead.got) == 1, what="the message")
    async with mill.database.reading() as session:
        statement = "select state, attempts, not_before > now() + interval '20 seconds' from extraction_webhook"
        assert [tuple(row) for row in await session.execute(text(statement))] == [("pending", 1, True)]
    assert (await mill.get(batch_id)).webhook is not None


async def _problem(mill: Mill, batch_id: str, what: str) -> bool:
    webhook = (await mill.get(batch_id)).webhook
    return webhook is not None and what in (webhook.problem or "")


async def test_two_workers_send_one_message_once(mill: Mill, receiver: Receiver) -> None:
    receiver.seconds = 0.2
    await mill.add_users("ann")
    batch = await mill.submit("ann", webhook=f"{receiver.url}/hook")
    await mill.batches.cancel(batch.id, tenant="default")
    senders = [Deliveries(mill.worker_settings(name), database=mill.database) for name in ("one", "two")]
    await asyncio.gather(*(sender.deliver_due() for sender in senders))
    assert len(receiver.got) == 1


async def test_a_message_whose_sender_died_is_due_again(mill: Mill, receiver: Receiver) -> None:
    from serving.jobs.webhooks.repository import DeliveryRepository

    await mill.add_users("ann")
    batch = await mill.submit("ann", webhook=f"{receiver.url}/hook")
    await mill.batches.cancel(batch.id, tenant="default")
    async with mill.database.transaction() as session:
        claimed = await DeliveryRepository(session).claim(within=timedelta(seconds=0.2))
    assert claimed is not None
    await asyncio.sleep(0.3)
    await Deliveries(mill.worker_settings(), database=mill.database).deliver_due()
    assert [headers["x-lorry-attempt"] for headers, _ in receiver.got] == ["2"]


async def test_a_webhook_that_resolves_to_this_machine_is_not_called_unless_that_is_allowed(receiver: Receiver) -> None:
    url = receiver.url.replace("127.0.0.1", "localhost").replace("http://", "https://") + "/hook"
    with pytest.raises(WebhookRefused, match="not public"):
        await WebhookSender(timeout_seconds=2, private=False).send(url, b"{}", {})
    assert receiver.got == []


async def test_a_receiver_that_is_not_there_says_so() -> None:
    with pytest.raises(WebhookFailed, match="ConnectError"):
        await WebhookSender(timeout_seconds=2, private=True).send("http://127.0.0.1:1/hook", b"{}", {})


async def test_a_secret_that_was_changed_signs_beside_the_new_one_for_a_day(mill: Mill, receiver: Receiver) -> None:
    secrets = WebhookSecrets(mill.database, mill.batch_settings)
    old = await secrets.show("default")
    new = await secrets.rotate("default")
    assert old != new
    assert await secrets.show("default") == new
    assert await secrets.show("other") not in {old, new}
    batch = await mill.submit("ann", webhook=f"{receiver.url}/hook")
    await mill.batches.cancel(batch.id, tenant="default")
    await Deliveries(mill.worker_settings(), database=mill.database).deliver_due()
    ((headers, body),) = receiver.got
    for secret in (old, new):
        assert verify(headers["x-lorry-signature"], secret=secret, body=body, now=time.time())


async def test_webhooks_without_a_key_are_refused_at_submission(mill: Mill) -> None:
    mill.batch_settings = mill.batch_settings.model_copy(update={"extraction_webhook_key": None})
    with pytest.raises(WebhooksNotSetUp):
        await mill.submit("ann", webhook="https://example.org/hook")


async def test_a_tenant_has_so_many_unfinished_batches_and_users_and_no_more(mill: Mill) -> None:
    limits = TenantLimits(mill.database, mill.batch_settings)
    await limits.put("default", max_batches=2, max_users=3)
    with pytest.raises(TooManyUsers, match="has 4 users and may have 3"):
        await mill.submit("a", "b", "c", "d")
    first, _ = await mill.submit("a"), await mill.submit("b")
    with pytest.raises(TooManyBatches, match="has 2 unfinished batches and may have 2"):
        await mill.submit("c")
    await mill.submit("c", tenant="other")
    await mill.batches.cancel(first.id, tenant="default")
    await mill.submit("c")
    assert (await limits.put("default", max_batches=-1)).max_batches == mill.batch_settings.extraction_max_batches


async def test_many_submissions_at_once_do_not_pass_the_limit_together(mill: Mill) -> None:
    await TenantLimits(mill.database, mill.batch_settings).put("default", max_batches=3)
    found = await asyncio.gather(*(mill.submit("a") for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(each, TooManyBatches) for each in found) == 5
    assert len(await mill.batches.list(tenant="default")) == 3
