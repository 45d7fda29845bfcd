"""Writing down what became of a user, once: the row that is changed says whose hands they are in.

Whoever delivers locks the batch first, so that results are numbered without a gap in the order in which they become
visible, and that exactly one delivery is the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from serving.jobs.repository import BatchRepository
from serving.jobs.states import UserState
from serving.jobs.users.repository import Hand, UserRepository


async def settle(
    session: AsyncSession,
    hand: Hand,
    *,
    worker_id: str,
    state: UserState,
    values: Mapping[str, Any] | None = None,
) -> bool:
    """Deliver a user out of a worker's hand; False when they are in it no more, and then nothing changes."""
    batches, users = BatchRepository(session), UserRepository(session)
    batch = await batches.get(hand.batch_id, lock=True)
    if batch is None:
        return False
    number = batch.delivered + 1
    if not await users.settle(hand, worker_id=worker_id, state=state, sequence=number, values=values or {}):
        return False
    await batches.deliver(hand.batch_id, state)
    return True


async def end_waiting(
    session: AsyncSession, batch_id: str, user: str, state: UserState, *, error: Mapping[str, Any] | None = None
) -> bool:
    """Deliver a user who was never in hand; False when they do not wait any more."""
    batches, users = BatchRepository(session), UserRepository(session)
    batch = await batches.get(batch_id, lock=True)
    if batch is None or not await users.end_waiting(batch_id, user, state, sequence=batch.delivered + 1, error=error):
        return False
    await batches.deliver(batch_id, state)
    return True
