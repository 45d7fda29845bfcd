"""How workers tell the API server what happened, without a turn of the engine's loop.

Every worker sends datagrams to one Unix socket of the API server, from a thread of its own: the kernel keeps them whole
and in order, and wakes the event loop. The socket lies in a directory that only this account can open.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeAlias

_log = logging.getLogger(__name__)

Signal: TypeAlias = dict[str, Any]
"""A worker's message: ``event`` and ``rank``, and what the event carries; values are JSON."""

_MAX_BYTES = 32 << 10
_MAX_ADDRESS_BYTES = 100


class SignalSender:
    """A worker's end: `send` never blocks and never raises."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Signal | None] = SimpleQueue()
        self._address: str | None = None
        self._rank = 0
        self._thread: threading.Thread | None = None

    def connect(self, address: str, *, rank: int) -> None:
        """Send to `address` from now on, as worker `rank`."""
        self._address, self._rank = address, rank
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lorry-signals", daemon=True)
            self._thread.start()

    def send(self, event: str, **values: Any) -> None:
        """Tell the API server of `event`; forgotten when nobody is connected."""
        if self._address is not None:
            self._queue.put({"event": event, "rank": self._rank, **values})

    def close(self) -> None:
        """Stop the thread after what is queued."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            while (signal := self._queue.get()) is not None:
                try:
                    channel.sendto(json.dumps(signal).encode(), self._address)  # type: ignore[arg-type]
                except OSError as exc:  # the API server is going away, and the engine with it
                    _log.warning("a signal to the API server was lost: %s", exc.strerror)
                except Exception:  # a mistake of ours; the thread must live to send the next one
                    _log.exception("a signal to the API server could not be sent: %s", signal.get("event"))


class SignalReceiver(asyncio.DatagramProtocol):
    """The API server's end: calls back, on its event loop, for every signal of every worker."""

    def __init__(self, on_signal: Callable[[Signal], None]) -> None:
        self._on_signal = on_signal
        self._path: Path | None = None
        self._transport: asyncio.BaseTransport | None = None

    async def open(self, directory: Path) -> str:
        """Listen on a socket in `directory`, made for this account only; returns the address for `connect`.

        Raises:
            OSError: when the socket cannot be made.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        self._path = directory / f"{os.getpid()}.sock"
        if len(os.fsencode(self._path)) > _MAX_ADDRESS_BYTES:
            raise OSError(f"{self._path} is too long for a socket's address")
        self._path.unlink(missing_ok=True)  # of a dead process with this number
        _remove_deserted(directory)
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        channel.setblocking(False)
        channel.bind(str(self._path))
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=channel)
        return str(self._path)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Pass one signal on; what is none is dropped."""
        try:
            signal = json.loads(data[:_MAX_BYTES])
        except ValueError:
            _log.warning("dropped a datagram that is no signal")
            return
        try:
            self._on_signal(signal)
        except Exception:  # a mistake of ours, or another program's datagram; the next one must be heard
            _log.exception("a signal of a worker could not be used")

    def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._transport is not None:
            self._transport.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _remove_deserted(directory: Path) -> None:
    """Remove the sockets of receivers that were killed, so that they do not gather."""
    for path in directory.glob("*.sock"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:  # nobody is bound to it any more
                path.unlink(missing_ok=True)
            except OSError:
                continue  # it has just been removed
