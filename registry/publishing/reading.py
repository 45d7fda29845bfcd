"""One pass over a version's bytes: each file's digest is compared, and whoever wants to look sees them stream by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from registry.errors import DigestMismatch
from registry.manifest import WEIGHTS_FILE, ManifestFile

Look = Callable[[memoryview], object]


class VersionReader:
    """Takes a version's files, one after another, in pieces of any length; nothing is kept."""

    def __init__(self, files: Sequence[ManifestFile], *, looks: Mapping[str, Sequence[Look]]) -> None:
        """Expect these files.

        Args:
            files: in the order of their bytes.
            looks: who is shown the pieces of which file.
        """
        self._files = list(files)
        self._looks = looks
        self._digest = hashlib.sha256()
        self._left = self._files[0].size_bytes

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            DigestMismatch: when a file is not the declared one, or more bytes come than were declared.
        """
        rest = memoryview(data)
        while rest:
            if not self._files:
                raise DigestMismatch("there are more bytes than were declared", field=WEIGHTS_FILE)
            piece = rest[: self._left]
            self._digest.update(piece)
            for look in self._looks.get(self._files[0].path, ()):
                look(piece)
            self._left -= len(piece)
            rest = rest[len(piece) :]
            if not self._left:
                self._end_file()

    def finish(self) -> None:
        """Make sure that nothing is missing.

        Raises:
            DigestMismatch: when bytes are.
        """
        if self._files:
            path = self._files[0].path
            raise DigestMismatch(f"{path} is shorter than declared", field=path)

    def _end_file(self) -> None:
        file = self._files.pop(0)
        if self._digest.hexdigest() != file.sha256:
            raise DigestMismatch(f"{file.path} does not have the declared SHA-256", field=file.path)
        self._digest = hashlib.sha256()
        if self._files:
            self._left = self._files[0].size_bytes
