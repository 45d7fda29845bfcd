"""Delivering webhooks' messages: each at least once, again after growing pauses, by whichever worker comes first.

A message that is being sent is due again when the try must long be over: a worker that dies over it loses nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from kit.database import Database
from kit.errors import LorryError
from kit.workers import backoff
from serving.jobs.models import BatchRow, DeliveryRow
from serving.jobs.repository import BatchRepository
from serving.jobs.settings import ExtractionWorkerSettings
from serving.jobs.states import DeliveryState, UserState
from serving.jobs.users.repository import UserRepository
from serving.jobs.webhooks.repository import DeliveryRepository
from serving.jobs.webhooks.secrets import WebhookSecrets
from serving.jobs.webhooks.sender import WebhookSender
from serving.jobs.webhooks.signature import HEADER, sign

OnDelivery = Callable[[str], None]
DELIVERY_HEADER = "x-lorry-delivery"
ATTEMPT_HEADER = "x-lorry-attempt"
_AT_ONCE = 16
_BASE_SECONDS, _MAX_SECONDS = 5.0, 3600.0
_MARGIN_SECONDS = 30.0
_log = logging.getLogger(__name__)


class Deliveries:
    """Sends what is due."""

    def __init__(
        self, settings: ExtractionWorkerSettings, *, database: Database, on_delivery: OnDelivery = lambda outcome: None
    ) -> None:
        """Prepare to send; `on_delivery` is told ``delivered``, ``again`` or ``given_up`` after each try."""
        self._settings = settings
        self._database = database
        self._on_delivery = on_delivery
        self._secrets = WebhookSecrets(database, settings)
        self._sender = WebhookSender(
            timeout_seconds=settings.extraction_webhook_timeout_seconds, private=settings.extraction_webhook_private
        )

    async def deliver_due(self) -> None:
        """Try everything that is due now once, many at a time; what goes wrong with one rises when all have ended."""
        more = True
        while more:
            outcomes = await asyncio.gather(*(self._deliver_one() for _ in range(_AT_ONCE)), return_exceptions=True)
            if failures := [outcome for outcome in outcomes if isinstance(outcome, BaseException)]:
                raise failures[0]
            more = all(outcomes)

    async def _deliver_one(self) -> bool:
        """Try one message; say whether there was one."""
        within = timedelta(seconds=self._settings.extraction_webhook_timeout_seconds + _MARGIN_SECONDS)
        async with self._database.transaction() as session:
            row = await DeliveryRepository(session).claim(within=within)
            if row is None:
                return False
            batch = await BatchRepository(session).get(row.batch_id)
            assert batch is not None
            assert batch.webhook_url is not None
            body = json.dumps(await _message(UserRepository(session), batch), separators=(",", ":")).encode()
        try:
            await self._sender.send(batch.webhook_url, body, await self._headers(batch, row, body))
        except LorryError as exc:
            await self._note_failure(row, exc.message)
        else:
            await self._note(row, {"state": DeliveryState.DELIVERED, "problem": None}, outcome="delivered")
        return True

    async def _headers(self, batch: BatchRow, row: DeliveryRow, body: bytes) -> dict[str, str]:
        async with self._database.reading() as session:
            secrets = await self._secrets.signing(session, batch.tenant)
        signature = sign(secrets, timestamp=int(time.time()), body=body)
        return {HEADER: signature, DELIVERY_HEADER: batch.id, ATTEMPT_HEADER: str(row.attempts)}

    async def _note_failure(self, row: DeliveryRow, why: str) -> None:
        if row.attempts >= self._settings.extraction_webhook_attempts:
            _log.warning("a webhook was given up after %d tries: %s", row.attempts, why)
            await self._note(row, {"state": DeliveryState.GIVEN_UP, "problem": why}, outcome="given_up")
            return
        pause = backoff(row.attempts, base_seconds=_BASE_SECONDS, max_seconds=_MAX_SECONDS)
        async with self._database.reading() as session:
            due = await DeliveryRepository(session).after(pause)
        await self._note(row, {"not_before": due, "problem": why}, outcome="again")

    async def _note(self, row: DeliveryRow, values: dict[str, Any], *, outcome: str) -> None:
        async with self._database.transaction() as session:
            if "state" in values:
                values["ended_at"] = await BatchRepository(session).now()
            if await DeliveryRepository(session).note(row.batch_id, attempt=row.attempts, values=values):
                self._on_delivery(outcome)


async def _message(users: UserRepository, batch: BatchRow) -> dict[str, Any]:
    """Return what is told: counts and times, nothing about anybody."""
    assert batch.ended_at is not None
    counts = (await users.counts([batch.id]))[batch.id]
    return {
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
