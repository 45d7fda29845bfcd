"""Trainings: submitted, watched, steered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from lorry.client.awaited.wire import AsyncWire
from lorry.client.calls import trainings as calls
from lorry.client.following import TrainingReader
from lorry.client.results import Training, TrainingDetails, TrainingEntry, TrainingEvent


class AsyncTrainings:
    """The trainings of the tenant's users."""

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire

    async def submit(
        self, user: str, *, adapter: str | None = None, settings: Mapping[str, float] | None = None, why: str = ""
    ) -> Training:
        """Queue a training of a user's adapter.

        Args:
            user: whose.
            adapter: which of theirs; None = the one that profiles are made with.
            settings: of `steps`, `min_steps`, `rank`, `alpha`, `learning_rate`, `seed`, `dataset.seed` and
                `dataset.max_examples`, those that are not to be the usual.
            why: kept with it.

        Raises:
            Conflict: when one is active (`problem["job_id"]`), or there is nothing to train on.
            RateLimited: when the tenant's quota is used up.
            Unavailable: when the gateway has no training service.
        """
        return await self._wire.send(calls.submit(user, adapter=adapter, settings=settings, why=why))

    def list(self, *, user: str | None = None, states: Sequence[str] = ()) -> AsyncIterator[Training]:
        """Yield the tenant's trainings, the latest first; only a user's, only those in some states."""
        return self._wire.pages(lambda cursor: calls.list_page(user=user, states=states, cursor=cursor))

    async def get(self, training_id: str) -> TrainingDetails:
        """Return one training.

        Raises:
            NotFound: when the tenant has none of that id.
        """
        return await self._wire.send(calls.get(training_id))

    async def cancel(self, training_id: str) -> Training:
        """End a training and remove what it has made.

        Raises:
            NotFound: when the tenant has none of that id.
            Conflict: when its state does not allow that.
        """
        return await self._wire.send(calls.steer(training_id, "cancel"))

    async def pause(self, training_id: str) -> Training:
        """Have a training wait; one that runs stops at its next step. Raises as `cancel`."""
        return await self._wire.send(calls.steer(training_id, "pause"))

    async def resume(self, training_id: str) -> Training:
        """Have a paused training go on. Raises as `cancel`."""
        return await self._wire.send(calls.steer(training_id, "resume"))

    async def retry(self, training_id: str) -> Training:
        """Try an ended training again: a failed one goes on after what it has finished, others begin anew.

        Raises:
            NotFound: when the tenant has none of that id.
            Conflict: when it has not ended, or has succeeded, or the user has another by now.
        """
        return await self._wire.send(calls.steer(training_id, "retry"))

    def events(self, training_id: str, *, after: int = 0) -> AsyncIterator[TrainingEntry]:
        """Yield what has happened to a training so far, after the event of that id. Raises as `get`."""
        return self._wire.pages(
            lambda cursor: calls.events_page(training_id, after=after if cursor is None else int(cursor))
        )

    def watch(self, training_id: str, *, after: int = 0) -> AsyncIterator[TrainingEvent]:
        """Yield what has happened to a training after the event of that id, and what comes, until it ends.

        A stream that breaks off is gone on with. Raises as `get`.
        """
        return self._wire.follow(TrainingReader(training_id, after=after))
