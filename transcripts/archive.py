"""A zip archive whose members are read without unpacking it, within limits that a hostile one cannot pass.

Nothing is written to a disk and no name in the archive becomes a path. Memory holds the directory of names and one
chunk: other methods than deflate are refused, because theirs may ask for gigabytes. A member that expands far more
than text does is a bomb.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from transcripts.errors import TranscriptTooLarge, TranscriptUnreadable

MAGICS = frozenset({b"PK\x03\x04", b"PK\x05\x06"})  # a first member, or none
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_MAX_DIRECTORY_BYTES = 64 * 1024 * 1024
_MAX_MEMBERS = 100_000
# Deflate reaches 1032; JSON of real conversations 5 to 40. Small members may be anything.
_MAX_RATIO = 200
_FREE_BYTES = 16 * 1024 * 1024
_END = b"PK\x05\x06"
_END_64 = b"PK\x06\x06"
_LOCATOR_64 = b"PK\x06\x07"
_END_BYTES = 22
_MAX_COMMENT_BYTES = 65_535
_FULL = 0xFFFFFFFF


@contextmanager
def open_archive(stream: BinaryIO, *, name: str) -> Iterator[zipfile.ZipFile]:
    """Open the archive's directory.

    Raises:
        TranscriptUnreadable: when it is broken or cut off.
        TranscriptTooLarge: when its directory is.
    """
    size = _directory_bytes(stream)
    if size is None:
        raise TranscriptUnreadable(f"{name} is a zip archive without an end: it is cut off", field=name)
    if size > _MAX_DIRECTORY_BYTES:
        raise TranscriptTooLarge(f"{name}: the archive's list of names has {size} bytes", field=name)
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, struct.error, NotImplementedError) as exc:
        raise TranscriptUnreadable(f"{name} is not a zip archive that can be read: {exc}", field=name) from exc
    with archive:
        if len(archive.infolist()) > _MAX_MEMBERS:
            raise TranscriptTooLarge(f"{name}: the archive has more than {_MAX_MEMBERS} members", field=name)
        yield archive


def check_member(member: zipfile.ZipInfo, *, name: str) -> None:
    """Refuse a member that cannot be read safely, by what the directory says of it.

    Raises:
        TranscriptUnreadable: when it is encrypted or compressed by another method than deflate.
        TranscriptTooLarge: when it would expand like a bomb.
    """
    if member.flag_bits & 0x1:
        raise TranscriptUnreadable(f"{name} is encrypted; unpack it first", field=name)
    if member.compress_type not in _METHODS:
        raise TranscriptUnreadable(f"{name} is compressed by a method other than deflate; unpack it first", field=name)
    _check_ratio(member.file_size, member.compress_size, name=name)


class MemberStream(io.RawIOBase):
    """The bytes of one member, checked while they are read; what the archive itself cannot say may be a lie."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, *, name: str) -> None:
        super().__init__()
        self._name = name
        self._packed = max(member.compress_size, 1)
        self._bytes = 0
        try:
            self._stream = cast(BinaryIO, archive.open(member))
        except (zipfile.BadZipFile, OSError, ValueError, struct.error, RuntimeError, NotImplementedError) as exc:
            raise TranscriptUnreadable(f"{name} cannot be read: {exc}", field=name) from exc

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes.

        Raises:
            TranscriptUnreadable: when the compressed data are damaged, or do not match their check sum.
            TranscriptTooLarge: when they have become too many.
        """
        try:
            data = self._stream.read(size)
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error) as exc:
            raise TranscriptUnreadable(
                f"{self._name} is damaged: {exc or type(exc).__name__}", field=self._name
            ) from exc
        self._bytes += len(data)
        _check_ratio(self._bytes, self._packed, name=self._name)
        return data

    def close(self) -> None:
        """Close the member; the archive stays open."""
        self._stream.close()
        super().close()


def _check_ratio(size: int, packed: int, *, name: str) -> None:
    if size > _FREE_BYTES and size > _MAX_RATIO * max(packed, 1):
        raise TranscriptTooLarge(
            f"{name} expands to more than {_MAX_RATIO} times its size, as no conversation does", field=name
        )


def _directory_bytes(stream: BinaryIO) -> int | None:
    """Return the size of the list of members, which zipfile would read whole; None when there is no end record."""
    stream.seek(0, io.SEEK_END)
    length = stream.tell()
    stream.seek(max(0, length - _END_BYTES - _MAX_COMMENT_BYTES - 20))
    tail = stream.read()
    stream.seek(0)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        return None
    size: int = struct.unpack_from("<L", tail, at + 12)[0]
    if size != _FULL or at < 20 or tail[at - 20 : at - 16] != _LOCATOR_64:
        return size
    offset: int = struct.unpack_from("<Q", tail, at - 12)[0]
    if offset + 56 > length:
        return None
    stream.seek(offset)
    record = stream.read(56)
    stream.seek(0)
    return struct.unpack_from("<Q", record, 40)[0] if record[:4] == _END_64 else None
