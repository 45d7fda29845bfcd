"""Clients that send their request's head, or read their answer, too slowly, or send a head without an end.

uvicorn waits for ever for the rest of a head, keeps as much of it as comes, and waits for ever until an answer is read.
Whoever has no key at all could use up memory and connections by that.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    Base = HttpToolsProtocol
else:
    Base = object

_MOST_HEAD_BYTES: Final = 64 << 10


class _Patience(Base):
    """What both of uvicorn's protocols get: two timers, and a bound on the bytes of a head."""

    head_seconds: float = 10.0
    """How long a request's head may take from its first byte, and a new connection until then."""
    stall_seconds: float = 60.0
    """How long an answer may wait until its reader has made room for more."""

    _head: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._reads_head():
            self._head_bytes = 0
            _cancel(self._head)
            self._head = None
            return
        self._head_bytes += len(data)
        if self._head is None:
            self._expect_head()
        if self._head_bytes > _MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's head is too large.")

    def pause_writing(self) -> None:
        super().pause_writing()
        _cancel(self._stall)
        self._stall = self.loop.call_later(self.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._stall)

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head)
        _cancel(self._stall)
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._head = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _reads_head(self) -> bool:
        """Say whether a head has begun, or nothing has come yet, and the head is not complete."""
        raise NotImplementedError


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class PatientH11(_Patience, H11Protocol):  # type: ignore[misc]
    """uvicorn's protocol in Python."""

    def _reads_head(self) -> bool:
        import h11

        return self.conn.their_state is h11.IDLE


def patient_protocol() -> type[asyncio.Protocol]:
    """Return the protocol that uvicorn would choose here, with patience that ends."""
    if find_spec("httptools") is None:
        return PatientH11
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class PatientHttpTools(_Patience, HttpToolsProtocol):
        """uvicorn's protocol around Node's parser."""

        _in_head = True

        def on_message_begin(self) -> None:
            self._in_head = True
            super().on_message_begin()

        def on_headers_complete(self) -> Any:
            self._in_head = False
            return super().on_headers_complete()

        def _reads_head(self) -> bool:
            return self._in_head

    return PatientHttpTools
