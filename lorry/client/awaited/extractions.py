"""Batch extractions: submitted, watched, steered, and their results read while they run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from lorry.client.awaited.wire import AsyncWire
from lorry.client.calls import extractions as calls
from lorry.client.following import ResultReader
from lorry.client.results import Extraction, ExtractionResult, ExtractionState, Only


class AsyncExtractions:
    """The tenant's batch extractions."""

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire

    async def submit(
        self,
        users: Iterable[str] | None = None,
        *,
        everybody: bool = False,
        only: Only = "all",
        max_age_days: float | None = None,
        webhook: str | None = None,
    ) -> Extraction:
        """Queue the extraction of many users' profiles.

        Args:
            users: whose; each counts once.
            everybody: every user of the tenant with a live adapter, in the place of `users`.
            only: ``stale`` leaves out who has a profile by the live version and the present bank.
            max_age_days: with ``stale``, an older profile is stale, too.
            webhook: URL that is told when the batch has ended.

        Raises:
            Invalid: naming the field.
            Conflict: for a webhook where this installation tells nobody.
            RateLimited: when the tenant has as many unfinished batches as it may.
        """
        call = calls.submit(users, everybody=everybody, only=only, max_age_days=max_age_days, webhook=webhook)
        return await self._wire.send(call)

    def list(self, *, states: Sequence[ExtractionState] = ()) -> AsyncIterator[Extraction]:
        """Yield the tenant's batches, the latest first; only those in some states."""
        return self._wire.pages(lambda cursor: calls.list_page(states=states, cursor=cursor))

    async def get(self, extraction_id: str) -> Extraction:
        """Return one batch: how far it is, how long it will take, who failed and why, by number.

        Raises:
            NotFound: when the tenant has none of that id.
        """
        return await self._wire.send(calls.get(extraction_id))

    def watch(self, extraction_id: str, *, every_seconds: float = 2.0) -> AsyncIterator[Extraction]:
        """Yield a batch as it is now, and again whenever that has changed, until it has ended. Raises as `get`."""
        return self._wire.poll(calls.get(extraction_id), until=lambda found: found.ended, every_seconds=every_seconds)

    async def pause(self, extraction_id: str) -> Extraction:
        """Have no more users taken in hand; those who are come to their end.

        Raises:
            NotFound: when the tenant has none of that id.
            Conflict: when it has ended.
        """
        return await self._wire.send(calls.steer(extraction_id, "pause"))

    async def resume(self, extraction_id: str) -> Extraction:
        """Have a paused batch go on. Raises as `pause`."""
        return await self._wire.send(calls.steer(extraction_id, "resume"))

    async def cancel(self, extraction_id: str) -> Extraction:
        """End a batch now; what was delivered stays. Raises as `pause`."""
        return await self._wire.send(calls.steer(extraction_id, "cancel"))

    def results(self, extraction_id: str, *, after: int = 0, follow: bool = False) -> AsyncIterator[ExtractionResult]:
        """Yield what came of each user, in the order in which they ended, also while the batch runs.

        A stream that breaks off is gone on with, so that nobody is missed or told twice.

        Args:
            extraction_id: of the batch.
            after: `sequence` of the last result that you have.
            follow: wait for those to come, until the batch has ended.

        Raises:
            NotFound: when the tenant has no batch of that id.
            Unavailable: when a part that holds results does not answer.
        """
        return self._wire.follow(ResultReader(extraction_id, after=after, follow=follow))
