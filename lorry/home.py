"""LORRY_HOME: the one directory that holds everything a single-machine Lorry keeps."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lorry.errors import HomeUnusable


@dataclass(frozen=True)
class Home:
    """Where things lie under one LORRY_HOME. Directories appear when they are first used."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> Home:
        """Create the directory (mode 0700) when it is missing.

        Raises:
            HomeUnusable: when it cannot be created or written.
        """
        path = path.expanduser().resolve()
        if path.exists() and not path.is_dir():
            raise HomeUnusable(f"{path} is a file, not a directory", field="LORRY_HOME")
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.chmod(path.stat().st_mode & 0o701)  # others may at most pass through, as root's PostgreSQL has to
        except OSError as exc:
            raise HomeUnusable(f"cannot create {path}: {exc.strerror}", field="LORRY_HOME") from exc
        if not os.access(path, os.W_OK | os.X_OK):
            raise HomeUnusable(f"cannot write to {path}", field="LORRY_HOME")
        return cls(path)

    def folder(self, *names: str) -> Path:
        """Return ``<home>/<names…>``, created when missing."""
        folder = self.path.joinpath(*names)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def logs(self) -> Path:
        """One log file per part."""
        return self.folder("logs")

    def user_folder(self, kind: str, *, tenant: str, user: str) -> Path:
        """Return ``<home>/<kind>/<tenant>/<user>``: datasets, runs or profiles of one user."""
        return self.folder(kind, tenant, user)

    def secret(self, name: str) -> str:
        """Return a random secret that is made once and kept with mode 0600."""
        path = self.folder("secrets") / name
        if not path.exists():
            beside = path.with_name(f"{name}.{secrets.token_hex(4)}.new")
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32))
            with suppress(FileExistsError):  # another command made it first, and has used it perhaps
                os.link(beside, path)
            beside.unlink()
        return path.read_text().strip()

    def keep_secret(self, name: str, value: str) -> None:
        """Store a secret that was made elsewhere, with mode 0600."""
        descriptor = os.open(self.folder("secrets") / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value)

    def has_secret(self, name: str) -> bool:
        """Say whether the secret was made already."""
        return (self.path / "secrets" / name).exists()
