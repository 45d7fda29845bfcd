"""Writing a sealed object of any size in bounded memory: nothing is visible before `commit`, and then all of it."""

from __future__ import annotations

import asyncio

from kit.multipart import Part, Upload
from kit.sealing import Sealer, sealed_size
from kit.storage import ObjectStorage

PART_BYTES = 16 << 20


class SealedSink:
    """Seals what it is given; keeps at most one part of it in memory."""

    def __init__(self, storage: ObjectStorage, target: str, *, key: bytes, context: bytes, plain_bytes: int) -> None:
        """Prepare to write.

        Args:
            storage: where to.
            target: the object's key in the store; it must not be taken.
            key: what to seal with.
            context: what the content is; opening takes the same.
            plain_bytes: how many bytes will be given.
        """
        self._storage = storage
        self._target = target
        self._sealer = Sealer(key, context=context)
        self._at_once = sealed_size(plain_bytes) <= PART_BYTES
        self._held = bytearray()
        self._upload: Upload | None = None
        self._parts: list[Part] = []

    async def update(self, data: bytes) -> None:
        """Seal the next bytes, and send them when there is a part of them."""
        self._held += await asyncio.to_thread(self._sealer.update, data)
        while not self._at_once and len(self._held) > PART_BYTES:
            await self._send(bytes(self._held[:PART_BYTES]))
            del self._held[:PART_BYTES]

    async def commit(self) -> None:
        """Make the object visible.

        Raises:
            ObjectConflict: when another one is there already.
        """
        self._held += self._sealer.finish()
        if self._at_once:
            await self._storage.put(self._target, bytes(self._held), only_if_absent=True)
            return
        await self._send(bytes(self._held))
        if self._upload is None:
            raise AssertionError("a part was sent")
        await self._storage.multipart.complete(self._upload, self._parts, only_if_absent=True)
        self._upload = None

    async def discard(self) -> None:
        """Leave nothing of what was not committed; may be called at any time."""
        self._held.clear()
        if self._upload is not None:
            await self._storage.multipart.abort(self._upload)
            self._upload = None

    async def _send(self, data: bytes) -> None:
        if self._upload is None:
            self._upload = await self._storage.multipart.begin(self._target)
        part = await self._storage.multipart.put_part(self._upload, len(self._parts) + 1, data)
        self._parts.append(part)
