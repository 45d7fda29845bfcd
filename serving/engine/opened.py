"""An adapter that was opened and verified, in memory that nobody can change any more, for the workers to read.

The memory has no name in any file system and is gone with the last process that holds it. Adapters are opened right
into it, where their digests are compared; then the kernel freezes it. A random mark at its end, which the order to the
workers repeats, proves to each of them that it reads what was verified, whatever else has got the same number since.
"""

from __future__ import annotations

import fcntl
import hmac
import mmap
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from serving.errors import AdapterDamaged

_MARK_BYTES = 16
_FROZEN = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, kw_only=True)
class OpenedFiles:
    """Where a worker reads an adapter's plain files: one after another, then the mark.

    Attributes:
        path: of the memory, for processes of the same account on this machine.
        sizes: file name → bytes, in order.
        mark: what follows the files, in hexadecimal.
    """

    path: str
    sizes: tuple[tuple[str, int], ...]
    mark: str

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Read what `values` returned, in another process."""
        sizes = tuple((str(name), int(size_bytes)) for name, size_bytes in values["sizes"])
        return cls(path=values["path"], sizes=sizes, mark=values["mark"])

    def values(self) -> dict[str, Any]:
        """Return this in plain values, for a call to a worker."""
        return {"path": self.path, "sizes": [list(size) for size in self.sizes], "mark": self.mark}

    def offset(self, name: str) -> tuple[int, int]:
        """Return where a file begins, and its size.

        Raises:
            AdapterDamaged: when there is no such file.
        """
        begin = 0
        for path, size_bytes in self.sizes:
            if path == name:
                return begin, size_bytes
            begin += size_bytes
        raise AdapterDamaged(f"{name} is missing", field=name)

    def open(self) -> int:
        """Return a descriptor of the memory, to be closed by the caller.

        Raises:
            OSError: when it is gone.
            AdapterDamaged: when it is not what the order meant.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        end = sum(size_bytes for _, size_bytes in self.sizes)
        if not hmac.compare_digest(os.pread(descriptor, _MARK_BYTES + 1, end), bytes.fromhex(self.mark)):
            os.close(descriptor)
            raise AdapterDamaged("The adapter's memory is not what was opened for it.")
        return descriptor


class OpenedAdapter:
    """The memory's owner: fill `plain`, then `freeze`; workers read it until `close`."""

    def __init__(self, size_bytes: int) -> None:
        """Take memory for files of `size_bytes` in all.

        Raises:
            OSError: when the machine has none, or no descriptor.
        """
        self._size_bytes = size_bytes
        self._files: OpenedFiles | None = None
        self._memory: mmap.mmap | None = None
        self._descriptor: int | None = None
        self._descriptor = os.memfd_create("lorry-adapter", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.truncate(self._descriptor, size_bytes + _MARK_BYTES)  # pages come as they are written to
            self._memory = mmap.mmap(self._descriptor, size_bytes + _MARK_BYTES)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return self._size_bytes

    @property
    def plain(self) -> memoryview:
        """The memory for the files, one after another; every view of it must be gone before `freeze`.

        Raises:
            ValueError: when it is frozen, or was let go.
        """
        if self._memory is None:
            raise ValueError("the adapter's memory is frozen, or was let go")
        return memoryview(self._memory)[: self._size_bytes]

    @property
    def files(self) -> OpenedFiles:
        """Where workers read it.

        Raises:
            ValueError: before `freeze`.
        """
        if self._files is None:
            raise ValueError("the adapter is not whole yet")
        return self._files

    def freeze(self, sizes: tuple[tuple[str, int], ...]) -> None:
        """Let nobody change what was written: files of these names and sizes, all of them verified."""
        if self._descriptor is None or self._memory is None:
            raise ValueError("the adapter's memory is frozen, or was let go")
        if self._size_bytes != sum(size_bytes for _, size_bytes in sizes):
            raise ValueError("the files have other sizes than the memory")
        descriptor, mark = self._descriptor, secrets.token_bytes(_MARK_BYTES)
        self._memory[self._size_bytes :] = mark
        self._memory.close()  # the kernel freezes nothing that somebody could still write to
        self._memory = None
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _FROZEN)
        self._files = OpenedFiles(path=f"/proc/{os.getpid()}/fd/{descriptor}", sizes=sizes, mark=mark.hex())

    def close(self) -> None:
        """Let the memory go; what workers have read of it is theirs. Further calls do nothing."""
        memory, self._memory = self._memory, None
        if memory is not None:  # it lives as long as a view of it, and an error that somebody keeps may hold one
            memory.madvise(mmap.MADV_REMOVE)
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()
