"""Authenticated encryption of content that may be larger than memory: in chunks, in one pass, either way.

The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015): AES-256-GCM over chunks of one size, under a key
of this content alone, with nonces that count the chunks and mark the last one. So a chunk that was changed, left out,
doubled, moved, added or brought from elsewhere is refused, and so is a truncated end.

    header    7 bytes   magic "LORRYSL"
              1         version of this format, 1
              4         plain bytes in a chunk, big-endian, a power of two from 1 KiB to 1 MiB
              32        random salt
              32        commitment: HKDF-SHA256(key, salt, "lorry seal commitment" ‖ what is bound)
    chunks    n + 16    AES-256-GCM(HKDF-SHA256(key, salt, "lorry seal chunks" ‖ what is bound), nonce, chunk)

Bound are the header's first 12 bytes and the caller's context. The commitment tells a wrong key from damaged content
and leaves no second key under which the same bytes would open. A nonce is the chunk's number in 11 bytes and one
byte that is 1 for the last chunk. Every chunk but the last is full; only the sole chunk of empty content is empty.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from collections.abc import Callable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kit.errors import SealBroken

KEY_BYTES = 32
CHUNK_BYTES = 256 << 10
_MAGIC = b"LORRYSL\x01"
_FIXED = struct.Struct(">8sI")
_SALT_BYTES = 32
_TAG_BYTES = 16
_CHUNK_SIZES = {1 << power for power in range(10, 21)}
HEADER_BYTES = _FIXED.size + _SALT_BYTES + KEY_BYTES

Fill = Callable[[memoryview], int]
"""Fills a buffer from its beginning; returns how many bytes that were: fewer than fit only where the content ends."""


def new_key() -> bytes:
    """Return 32 random bytes."""
    return secrets.token_bytes(KEY_BYTES)


def derive_key(key: bytes, purpose: str) -> bytes:
    """Return the 32-byte key for one purpose; whoever holds it learns nothing about `key` or other purposes."""
    return _hkdf(key, salt=None, info=b"lorry key\0" + purpose.encode())


def sealed_size(plain_bytes: int, *, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Return how many bytes the seal of so many plain bytes has."""
    return HEADER_BYTES + plain_bytes + _TAG_BYTES * max(1, -(-plain_bytes // chunk_bytes))


def seal(key: bytes, data: bytes, *, context: bytes) -> bytes:
    """Return `data` sealed; for what fits into memory."""
    sealer = Sealer(key, context=context)
    return sealer.update(data) + sealer.finish()


def unseal(key: bytes, sealed: bytes, *, context: bytes) -> bytes:
    """Return what `seal` was given.

    Raises:
        SealBroken: when these are not the bytes that were sealed under this key and context.
    """
    opener = Opener(key, context=context)
    return opener.update(sealed) + opener.finish()


class Sealer:
    """Seals one content, piece by piece: `update` as often as it takes, then `finish`; outputs are to be joined."""

    def __init__(self, key: bytes, *, context: bytes, chunk_bytes: int = CHUNK_BYTES) -> None:
        """Prepare the seal.

        Args:
            key: 32 bytes; may seal any number of contents.
            context: what the content is, such as its id; opening takes the same.
            chunk_bytes: a power of two from 1 KiB to 1 MiB.
        """
        if chunk_bytes not in _CHUNK_SIZES:
            raise ValueError(f"chunk_bytes must be a power of two from 1 KiB to 1 MiB, not {chunk_bytes}")
        fixed, salt = _FIXED.pack(_MAGIC, chunk_bytes), secrets.token_bytes(_SALT_BYTES)
        self._chunks, commitment = _chunk_key(key, salt, fixed=fixed, context=context)
        self._chunk_bytes = chunk_bytes
        self._header = fixed + salt + commitment
        self._held = bytearray()
        self._number = 0
        self._finished = False

    def update(self, data: bytes | memoryview) -> bytes:
        """Take the next plain bytes; return sealed bytes, up to a chunk behind."""
        if self._finished:
            raise ValueError("this content is sealed already")
        # The last chunk is marked, so what may be the last one waits for more, or for the end.
        if len(self._held) + len(data) <= self._chunk_bytes:
            self._held += data
            return self._take_header()
        output = [header] if (header := self._take_header()) else []
        chunks = _whole_chunks(self._held, data, size=self._chunk_bytes)
        output += [self._seal_chunk(chunk, last=False) for chunk in chunks]
        return output[0] if len(output) == 1 else b"".join(output)

    def finish(self) -> bytes:
        """Return the last sealed bytes."""
        if self._finished:
            raise ValueError("this content is sealed already")
        self._finished = True
        return self._take_header() + self._seal_chunk(self._held, last=True)

    def _seal_chunk(self, chunk: bytes | bytearray | memoryview, *, last: bool) -> bytes:
        sealed = self._chunks.encrypt(_nonce(self._number, last=last), chunk, None)
        self._number += 1
        return sealed

    def _seal_into(self, sealed: memoryview, chunk: memoryview, *, last: bool) -> memoryview:
        """Seal one chunk into `sealed`; returns the part of that which it takes."""
        taken = sealed[: len(chunk) + _TAG_BYTES]
        self._chunks.encrypt_into(_nonce(self._number, last=last), chunk, None, taken)
        self._number += 1
        return taken

    def _take_header(self) -> bytes:
        header, self._header = self._header, b""
        return header


class Opener:
    """Opens one sealed content, piece by piece; returns only bytes whose chunk is authentic.

    What `update` has returned is a true beginning of the content; that it was all of it, only `finish` says.
    """

    def __init__(self, key: bytes, *, context: bytes) -> None:
        self._key = key
        self._context = context
        self._chunks: AESGCM | None = None
        self._sealed_chunk_bytes = 0
        self._held = bytearray()
        self._number = 0
        self._finished = False

    def update(self, data: bytes | memoryview) -> bytes:
        """Take the next sealed bytes; return plain bytes.

        Raises:
            SealBroken: when these are not the bytes that were sealed under this key and context.
        """
        if self._finished:
            raise ValueError("this content is opened already")
        if self._chunks is None:
            self._held += data
            if len(self._held) < HEADER_BYTES:
                return b""
            self._read_header(bytes(self._held[:HEADER_BYTES]))
            data, self._held = bytes(self._held[HEADER_BYTES:]), bytearray()
        size = self._sealed_chunk_bytes
        if len(self._held) + len(data) <= size:
            self._held += data
            return b""
        output = [self._open_chunk(chunk, last=False) for chunk in _whole_chunks(self._held, data, size=size)]
        return output[0] if len(output) == 1 else b"".join(output)

    def finish(self) -> bytes:
        """Return the last plain bytes: nothing is missing, and nothing follows.

        Raises:
            SealBroken: when the content is not whole.
        """
        if self._finished:
            raise ValueError("this content is opened already")
        if self._chunks is None:
            raise SealBroken("the sealed content ends within its header")
        self._finished = True
        plain = self._open_chunk(self._held, last=True)
        if not plain and self._number > 1:
            raise SealBroken("the sealed content has an empty chunk at its end")
        return plain

    def _read_header(self, header: bytes) -> None:
        fixed, salt = header[: _FIXED.size], header[_FIXED.size : _FIXED.size + _SALT_BYTES]
        magic, chunk_bytes = _FIXED.unpack(fixed)
        if magic != _MAGIC or chunk_bytes not in _CHUNK_SIZES:
            raise SealBroken("this is not sealed content, or of a format that this program does not know")
        self._chunks, commitment = _chunk_key(self._key, salt, fixed=fixed, context=self._context)
        if not hmac.compare_digest(commitment, header[_FIXED.size + _SALT_BYTES :]):
            raise SealBroken(
                "the content was sealed under another key or for another purpose, or its header is damaged"
            )
        self._sealed_chunk_bytes = chunk_bytes + _TAG_BYTES

    def _open_into(self, plain: memoryview, chunk: memoryview, *, last: bool) -> memoryview:
        """Open one chunk into `plain`; returns the part of that which it takes."""
        assert self._chunks is not None
        opened = plain[: max(0, len(chunk) - _TAG_BYTES)]
        try:
            self._chunks.decrypt_into(_nonce(self._number, last=last), chunk, None, opened)
        except (InvalidTag, ValueError) as exc:  # the latter for what is shorter than a tag
            raise SealBroken(f"chunk {self._number} of the sealed content is damaged, missing or misplaced") from exc
        self._number += 1
        if not opened and self._number > 1:
            raise SealBroken("the sealed content has an empty chunk at its end")
        return opened

    def _open_chunk(self, chunk: bytes | bytearray | memoryview, *, last: bool) -> bytes:
        assert self._chunks is not None
        try:
            plain = self._chunks.decrypt(_nonce(self._number, last=last), chunk, None)
        except InvalidTag as exc:
            raise SealBroken(f"chunk {self._number} of the sealed content is damaged, missing or misplaced") from exc
        self._number += 1
        return plain


def seal_stream(fill: Fill, key: bytes, *, context: bytes, chunk_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
    """Yield the seal of one content, piece by piece, each until the next one is asked for.

    Nothing is copied, and few chunks of memory are reused.
    """
    sealer = Sealer(key, context=context, chunk_bytes=chunk_bytes)
    yield memoryview(sealer._take_header())
    sealed = memoryview(bytearray(chunk_bytes + _TAG_BYTES))
    this, other = memoryview(bytearray(chunk_bytes)), memoryview(bytearray(chunk_bytes))
    this_bytes = fill(this)
    while this_bytes == chunk_bytes and (other_bytes := fill(other)):
        yield sealer._seal_into(sealed, this, last=False)
        this, other, this_bytes = other, this, other_bytes
    yield sealer._seal_into(sealed, this[:this_bytes], last=True)


def open_stream(fill: Fill, key: bytes, *, context: bytes, into: memoryview | None = None) -> Iterator[memoryview]:
    """Yield the plain bytes of one sealed content, chunk by chunk.

    Nothing is copied: the chunks are opened into `into`, one after another, or else all of them into the same memory,
    where each lasts until the next one is asked for and what looks at it finds it in the processor's cache. Only an
    exhausted iterator has shown all of the content.

    Raises:
        SealBroken: when these are not the bytes that were sealed under this key and context, not all of them, or more
            than `into` takes.
    """
    header = bytearray(HEADER_BYTES)
    if fill(memoryview(header)) < HEADER_BYTES:
        raise SealBroken("the sealed content ends within its header")
    opener = Opener(key, context=context)
    opener._read_header(bytes(header))
    size = opener._sealed_chunk_bytes
    room = memoryview(bytearray(size - _TAG_BYTES)) if into is None else into
    this, other = memoryview(bytearray(size)), memoryview(bytearray(size))
    this_bytes, is_last = fill(this), False
    while not is_last:
        other_bytes = fill(other) if this_bytes == size else 0
        is_last = not other_bytes
        if this_bytes - _TAG_BYTES > len(room):
            raise SealBroken("the sealed content is longer than what it should be")
        piece = opener._open_into(room, this[:this_bytes], last=is_last)
        if into is not None:
            room = room[len(piece) :]
        yield piece
        this, other, this_bytes = other, this, other_bytes


def _whole_chunks(held: bytearray, data: bytes | memoryview, *, size: int) -> Iterator[bytearray | memoryview]:
    """Yield the chunks of `held` and `data` that cannot be the last one; leave the rest in `held`.

    Copies only what straddles: sealing is as quick as memory, so each copy of all of it would show.
    """
    view = memoryview(data)
    at = 0
    if held:
        at = size - len(held)
        held += view[:at]
        yield held
        del held[:]
    while len(view) - at > size:
        yield view[at : at + size]
        at += size
    held += view[at:]


def _chunk_key(key: bytes, salt: bytes, *, fixed: bytes, context: bytes) -> tuple[AESGCM, bytes]:
    """Return the cipher of one content's chunks, and the commitment to its key."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    bound = b"\0" + fixed + context
    cipher = AESGCM(_hkdf(key, salt=salt, info=b"lorry seal chunks" + bound))
    return cipher, _hkdf(key, salt=salt, info=b"lorry seal commitment" + bound)


def _hkdf(key: bytes, *, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(key)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if last else b"\0")
