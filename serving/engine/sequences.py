"""When the engine itself is done with a request, however slowly its answer is read.

vLLM's output processor keeps a table of the sequences in the engine: one enters as it is handed over, and leaves as it
is finished or aborted. `watch_sequences` puts a table that tells in its place. A `Hold` counts one HTTP request's
sequences, found by the context that they are handed over in, and lets go when the last has left; one that comes later
is refused rather than run without what was held. The seam is private: ``tests/contract``
watches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self

from vllm.v1.engine.async_llm import AsyncLLM

from serving.engine.resolver import refusal
from serving.errors import LeaseOver

_current: ContextVar[Hold | None] = ContextVar("lorry_hold", default=None)


class Hold:
    """What one HTTP request keeps until the engine is done with all of its sequences."""

    def __init__(self, release: Callable[[], None], *, expected: float) -> None:
        """Start with no sequence in the engine.

        Args:
            release: gives back what is held; called once.
            expected: sequences that the request will put into the engine; infinite when nobody can say: then
                what is held is let go once the request is answered.
        """
        self._release = release
        self._expected = expected
        self._inside: set[str] = set()
        self._left = 0
        self._is_answered = self._is_released = False

    @classmethod
    def nothing(cls) -> Self:
        """Return the hold of a request that was given nothing: none of its sequences may run."""
        hold = cls(lambda: None, expected=0)
        hold._let_go_when_done()
        return hold

    @contextmanager
    def during(self) -> Iterator[None]:
        """Count the sequences that are handed over in this block; after it, no more are expected."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            self._is_answered = True
            self._let_go_when_done()

    def enter(self, sequence: str) -> None:
        """Count a sequence that is about to be in the engine.

        Raises:
            GracefulHTTPError: when what is held was given back: nothing may run on it any more.
        """
        if self._is_released:
            raise refusal(LeaseOver())
        self._inside.add(sequence)

    def leave(self, sequence: str) -> None:
        """Count a sequence that the engine finished or aborted."""
        self._inside.discard(sequence)
        self._left += 1
        self._let_go_when_done()

    def _let_go_when_done(self) -> None:
        is_done = self._left >= self._expected or self._is_answered
        if is_done and not self._inside and not self._is_released:
            self._is_released = True
            self._release()


class WatchedSequences(dict[str, Any]):
    """vLLM's table of sequences, which tells their holds when they enter and leave."""

    def __init__(self) -> None:
        super().__init__()
        self._holds: dict[str, Hold] = {}

    def __setitem__(self, sequence: str, state: Any) -> None:
        hold = _current.get()
        if hold is not None and sequence not in self._holds:
            hold.enter(sequence)
            self._holds[sequence] = hold
        super().__setitem__(sequence, state)

    def pop(self, sequence: str, *default: Any) -> Any:
        """Remove a sequence: the only way in which vLLM does."""
        state = super().pop(sequence, *default)
        hold = self._holds.pop(sequence, None)
        if hold is not None:
            hold.leave(sequence)
        return state


def watch_sequences(engine: AsyncLLM) -> None:
    """Make holds hear of the engine's sequences; calling it again changes nothing."""
    processor = engine.output_processor
    if not isinstance(processor.request_states, WatchedSequences):
        watched = WatchedSequences()
        watched.update(processor.request_states)
        processor.request_states = watched
