"""LORRY_HOME: the one directory that holds everything a single-machine Lorry keeps."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock

from lorry.errors import HomeUnusable
from lorry.processes import process_start

DISK_ID = "home-id"


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

    @property
    def logs_lock(self) -> FileLock:
        """Held by whoever changes what logs hold already."""
        return FileLock(self.folder("run") / "logs.lock")

    def user_folder(self, kind: str, *, tenant: str, user: str) -> Path:
        """Return ``<home>/<kind>/<tenant>/<user>``: datasets, runs or profiles of one user.

        From then on this process counts as working on the user's files.
        """
        self.work_on(tenant, user)
        return self.folder(kind, tenant, user)

    @property
    def disk_id(self) -> str:
        """Name of this home, by which an erasure asks for its files; the same for as long as it exists."""
        return f"home-{hashlib.sha256(self.secret(DISK_ID).encode()).hexdigest()[:12]}"

    def work_on(self, tenant: str, user: str) -> None:
        """Be known, until this process ends, as one that works on a user's files."""
        path = self._working(tenant, user) / str(os.getpid())
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._forget_ended(path.parent)
            path.write_text(json.dumps(process_start(os.getpid())))

    def working_on(self, tenant: str, user: str) -> list[psutil.Process]:
        """Return the processes that work on a user's files; a pid that another process has by now is left out."""
        folder = self._working(tenant, user)
        found = []
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            try:
                if process_start(int(path.name)) == json.loads(path.read_text()):
                    found.append(psutil.Process(int(path.name)))
            except (OSError, ValueError, psutil.NoSuchProcess):
                continue  # it is just coming or going
        return found

    def _forget_ended(self, folder: Path) -> None:
        """Forget processes that have ended: each command that worked on a user has left a file."""
        for path in folder.iterdir():
            with suppress(OSError, ValueError):
                if process_start(int(path.name)) != json.loads(path.read_text()):
                    path.unlink()

    def forget_working_on(self, tenant: str, user: str) -> None:
        """Forget who has worked on a user's files."""
        shutil.rmtree(self._working(tenant, user), ignore_errors=True)

    def _working(self, tenant: str, user: str) -> Path:
        """Return where it is noted who works on a user's files; the name does not say whose they are."""
        return self.path / "run" / "working" / hashlib.sha256(f"{tenant}/{user}".encode()).hexdigest()[:32]

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
