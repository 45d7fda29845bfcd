"""LORRY_HOME: the one directory that holds everything a single-machine Lorry keeps."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from lorry.errors import AlreadyRunning, HomeUnusable

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
            descriptor = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32))
            path.with_suffix(".new").replace(path)
        return path.read_text().strip()

    def keep_secret(self, name: str, value: str) -> None:
        """Store a secret that was made elsewhere, with mode 0600."""
        descriptor = os.open(self.folder("secrets") / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value)

    def has_secret(self, name: str) -> bool:
        """Say whether the secret was made already."""
        return (self.path / "secrets" / name).exists()

    @contextmanager
    def ownership(self) -> Iterator[None]:
        """Hold the right to run parts from this home.

        Raises:
            AlreadyRunning: when another process holds it.
        """
        lock = FileLock(self.folder("run") / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as exc:
            raise AlreadyRunning(
                f"another lorry process runs its parts from {self.path}; wait until it ends, or try again when it has"
                " started them"
            ) from exc
        try:
            yield
        finally:
            self.forget_state()
            lock.release()

    def is_owned(self) -> bool:
        """Say whether some process runs parts from this home now."""
        lock = FileLock(self.folder("run") / "lock")
        try:
            with lock.acquire(timeout=0):
                return False
        except Timeout:
            return True

    def write_state(self, state: dict[str, str]) -> None:
        """Publish the addresses of the running parts to other lorry commands."""
        path = self.folder("run") / "state.json"
        path.with_suffix(".new").write_text(json.dumps(state, indent=2))
        path.with_suffix(".new").replace(path)

    def read_state(self) -> dict[str, str] | None:
        """Return the addresses that the owning process published, or None when nothing runs."""
        path = self.folder("run") / "state.json"
        if not path.exists() or not self.is_owned():
            return None
        state: dict[str, str] = json.loads(path.read_text())
        return state

    def write_processes(self, pids: list[int]) -> None:
        """Remember which processes run from here, for an owner that comes after this one was killed."""
        processes = [{"pid": pid, "started": process_start(pid)} for pid in pids]
        path = self.folder("run") / "processes.json"
        path.with_suffix(".new").write_text(json.dumps(processes))
        path.with_suffix(".new").replace(path)

    def read_processes(self) -> list[psutil.Process]:
        """Return those remembered processes that still run; a pid that another process has by now is left out."""
        path = self.folder("run") / "processes.json"
        remembered = json.loads(path.read_text()) if path.exists() else []
        alive = [each for each in remembered if each["started"] and each["started"] == process_start(each["pid"])]
        return [psutil.Process(each["pid"]) for each in alive]

    @contextmanager
    def guest(self) -> Iterator[None]:
        """Be known, while the block runs, as a command that uses the parts of another."""
        path = self.folder("run", "guests") / str(os.getpid())
        path.write_text(json.dumps({"pid": os.getpid(), "started": process_start(os.getpid())}))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def guests(self) -> list[int]:
        """Return the pids of the commands that use the parts of this home now; those of killed ones are forgotten."""
        found = []
        for path in sorted(self.folder("run", "guests").iterdir()):
            try:
                guest = json.loads(path.read_text())
            except (OSError, ValueError):
                continue  # it is just coming or going
            if guest["started"] == process_start(guest["pid"]):
                found.append(guest["pid"])
            else:
                path.unlink(missing_ok=True)
        return found

    def forget_state(self) -> None:
        """Withdraw what `write_state` published."""
        (self.path / "run" / "state.json").unlink(missing_ok=True)


def process_start(pid: int) -> float | None:
    """Return when a process started, which tells it from a later one of the same pid; None when it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None
