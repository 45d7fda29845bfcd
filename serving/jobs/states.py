"""What a batch and each of its users can be, and what may become of them: the state machines, without a database.

```
batch   queued ──planned──► running ──last user──► done          user   waiting ◄──again── held ──► done | failed
          │  ▲                │  ▲                                         └───────claim─────▲
          ▼  │                ▼  │                                       waiting ──► skipped | failed (when planned)
          paused ◄──────────► paused       any of them ──► canceled      waiting, held ──► canceled
```

A batch that is planned has its users in adapter order. `failed` is a batch that could not be planned: too many users.
A pause lets users in hand come to their end; a cancellation takes them out of their workers' hands.
"""

from __future__ import annotations

from enum import StrEnum

from serving.jobs.errors import IllegalBatchTransition


class BatchState(StrEnum):
    """Where a batch stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELED = "canceled"
    FAILED = "failed"


class UserState(StrEnum):
    """Where one user of a batch stands."""

    WAITING = "waiting"
    HELD = "held"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELED = "canceled"


class DeliveryState(StrEnum):
    """What became of a webhook's message."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


UNFINISHED = frozenset({BatchState.QUEUED, BatchState.RUNNING, BatchState.PAUSED})
ENDED = frozenset(BatchState) - UNFINISHED
OPEN = frozenset({UserState.WAITING, UserState.HELD})
DELIVERED = frozenset({UserState.DONE, UserState.FAILED, UserState.SKIPPED})


def pause(state: BatchState) -> BatchState:
    """Return what a batch becomes that shall take no more users in hand.

    Raises:
        IllegalBatchTransition: it has ended.
    """
    return _moved(state, UNFINISHED, BatchState.PAUSED, verb="paused")


def resume(state: BatchState, *, planned: bool) -> BatchState:
    """Return what a paused batch becomes that shall go on; one that was not paused stays what it is.

    Raises:
        IllegalBatchTransition: it has ended.
    """
    return _moved(state, UNFINISHED, BatchState.RUNNING if planned else BatchState.QUEUED, verb="resumed")


def cancel(state: BatchState) -> BatchState:
    """Return what a batch becomes that shall end now; what was delivered stays.

    Raises:
        IllegalBatchTransition: it has ended in another way.
    """
    if state is BatchState.CANCELED:
        return state
    return _moved(state, UNFINISHED, BatchState.CANCELED, verb="canceled")


def _moved(state: BatchState, allowed: frozenset[BatchState], to: BatchState, *, verb: str) -> BatchState:
    if state not in allowed:
        raise IllegalBatchTransition(f"a batch that is {state.value} cannot be {verb}", field="state")
    return to
