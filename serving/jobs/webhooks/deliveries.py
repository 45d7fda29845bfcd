"""Delivering webhooks' messages: each at least once, again after growing pauses, by whichever worker comes first.

A message that is being sent is due again when the try must long be over: a worker that dies over it loses nothing. A
receiver that does not answer keeps its place until the time-out, so places are divided: see `Places`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from kit.errors import LorryError
from kit.workers import backoff
from serving.jobs.repository import BatchRepository
from serving.jobs.settings import ExtractionWorkerSettings
from serving.jobs.states import DeliveryState, UserState
from serving.jobs.users.repository import UserRepository
from serving.jobs.webhooks.places import Places
from serving.jobs.webhooks.repository import Claimed, DeliveryRepository
from serving.jobs.webhooks.secrets import WebhookSecrets
from serving.jobs.webhooks.sender import WebhookSender
from serving.jobs.webhooks.signature import HEADER, sign

OnDelivery = Callable[[str], None]
DELIVERY_HEADER = "x-lorry-delivery"
ATTEMPT_HEADER = "x-lorry-attempt"
_BASE_SECONDS, _MAX_SECONDS = 5.0, 3600.0
_MARGIN_SECONDS = 30.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Message:
    """One try of one message."""

    claimed: Claimed
    url: str
    body: bytes


class Deliveries:
    """Sends what is due."""

    def __init__(
        self, settings: ExtractionWorkerSettings, *, database: Database, on_delivery: OnDelivery = lambda outcome: None
    ) -> None:
        """Prepare to send; `on_delivery` is told ``delivered``, ``again`` or ``given_up`` after each try."""
        self._settings = settings
        self._database = database
        self._on_delivery = on_delivery
        self._places = Places()
        self._secrets = WebhookSecrets(database, settings)
        self._sender = WebhookSender(
            timeout_seconds=settings.extraction_webhook_timeout_seconds, private=settings.extraction_webhook_private
        )

    async def deliver_due(self) -> None:
        """Try everything that is due, and what becomes due meanwhile, until nothing is."""
        sending: set[asyncio.Task[None]] = set()
        try:
            while True:
                while (message := await self._claim()) is not None:
                    sending.add(self._begin(message))
                if not sending:
                    return
                poll_seconds = self._settings.extraction_poll_seconds
                done, sending = await asyncio.wait(sending, timeout=poll_seconds, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.gather(*done)
        except asyncio.CancelledError:  # what was not sent to its end is due again
            for task in sending:
                task.cancel()
            raise
        finally:
            await asyncio.gather(*sending, return_exceptions=True)

    async def _claim(self) -> _Message | None:
        """Take a message for a place that is free; None when there is no such message, or no such place.

        A tenant who has no message under way comes before those who have.
        """
        if self._places.are_taken:
            return None
        within = timedelta(seconds=self._settings.extraction_webhook_timeout_seconds + _MARGIN_SECONDS)
        hosts = self._places.full_hosts()
        async with self._database.transaction() as session:
            repository = DeliveryRepository(session)
            for tenants in dict.fromkeys((self._places.tenants(), self._places.full_tenants())):
                claimed = await repository.claim(within=within, but_tenants=tenants, but_hosts=hosts)
                if claimed is not None:
                    return await _message(session, claimed)
        return None

    def _begin(self, message: _Message) -> asyncio.Task[None]:
        tenant, host = message.claimed.tenant, message.claimed.host
        self._places.take(tenant, host)
        task = asyncio.create_task(self._deliver(message))
        task.add_done_callback(lambda ended: self._places.leave(tenant, host))
        return task

    async def _deliver(self, message: _Message) -> None:
        """Try one message, and write down what became of it."""
        claimed = message.claimed
        try:
            try:
                await self._sender.send(message.url, message.body, await self._headers(claimed, message.body))
            except LorryError as exc:
                await self._note_failure(claimed, exc.message)
            else:
                await self._note(claimed, {"state": DeliveryState.DELIVERED, "problem": None}, outcome="delivered")
        except LorryError as exc:
            _log.warning("what became of a webhook was not written down, so it is due again: %s", type(exc).__name__)

    async def _headers(self, claimed: Claimed, body: bytes) -> dict[str, str]:
        async with self._database.reading() as session:
            secrets = await self._secrets.signing(session, claimed.tenant)
        signature = sign(secrets, timestamp=int(time.time()), body=body)
        return {HEADER: signature, DELIVERY_HEADER: claimed.batch_id, ATTEMPT_HEADER: str(claimed.attempt)}

    async def _note_failure(self, claimed: Claimed, why: str) -> None:
        if claimed.attempt >= self._settings.extraction_webhook_attempts:
            _log.warning("a webhook was given up after %d tries: %s", claimed.attempt, why)
            await self._note(claimed, {"state": DeliveryState.GIVEN_UP, "problem": why}, outcome="given_up")
            return
        pause = backoff(claimed.attempt, base_seconds=_BASE_SECONDS, max_seconds=_MAX_SECONDS)
        async with self._database.reading() as session:
            due = await DeliveryRepository(session).after(pause)
        await self._note(claimed, {"not_before": due, "problem": why}, outcome="again")

    async def _note(self, claimed: Claimed, values: dict[str, Any], *, outcome: str) -> None:
        async with self._database.transaction() as session:
            if "state" in values:
                values["ended_at"] = await BatchRepository(session).now()
            if await DeliveryRepository(session).note(claimed.batch_id, attempt=claimed.attempt, values=values):
                self._on_delivery(outcome)


async def _message(session: AsyncSession, claimed: Claimed) -> _Message:
    """Return what is told: counts and times, nothing about anybody."""
    batch = await BatchRepository(session).get(claimed.batch_id)
    assert batch is not None
    assert batch.webhook_url is not None
    assert batch.ended_at is not None
    counts = (await UserRepository(session).counts([batch.id]))[batch.id]
    told = {
        "type": "extraction.ended",
        "id": batch.id,
        "state": batch.state,
        "users": batch.users,
        "done": batch.done,
        "failed": batch.failed,
        "skipped": batch.skipped,
        "canceled": counts.get(UserState.CANCELED, 0),
        "submitted_at": batch.submitted_at.isoformat(),
        "ended_at": batch.ended_at.isoformat(),
    }
    return _Message(claimed=claimed, url=batch.webhook_url, body=json.dumps(told, separators=(",", ":")).encode())
