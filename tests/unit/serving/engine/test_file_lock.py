from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.engine.file_lock import lock_if_free, locked
from serving.errors import CacheBusy, CacheFull, MachineRefused

HOLD = """
import asyncio, sys
from pathlib import Path
from serving.engine.file_lock import locked

async def main():
    async with locked(Path(sys.argv[1]), timeout_seconds=5):
        print("held", flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


async def test_the_lock_excludes_everyone_else_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "v.lock"
    inside = 0

    async def enter() -> None:
        nonlocal inside
        async with locked(path, timeout_seconds=120):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.001)
            inside -= 1

    await asyncio.gather(*(enter() for _ in range(30)))
    assert list(tmp_path.iterdir()) == []


async def test_a_lock_whose_directory_was_removed_makes_it_anew_for_this_account_only(tmp_path: Path) -> None:
    path = tmp_path / "cache" / ".staging" / "v.lock"
    with lock_if_free(path) as free:
        assert (free, path.exists(), path.parent.stat().st_mode & 0o777) == (True, True, 0o700)


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, CacheFull), (errno.EMFILE, MachineRefused)])
async def test_a_lock_that_cannot_be_made_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(error):
            async with locked(tmp_path / "v.lock", timeout_seconds=1):
                pytest.fail("nobody holds it")


async def test_waiting_for_the_lock_ends_at_the_deadline(tmp_path: Path) -> None:
    path = tmp_path / "v.lock"
    async with locked(path, timeout_seconds=1):
        with pytest.raises(CacheBusy, match=r"v\.lock is held by another process"):
            async with locked(path, timeout_seconds=0.05):
                pytest.fail("two holders")


async def test_the_lock_of_another_process_is_respected_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "v.lock"
    holder = subprocess.Popen(  # noqa: ASYNC220 - started at once; the test has nothing else to do
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with lock_if_free(path) as free:
            assert not free
        holder.kill()

    async with locked(path, timeout_seconds=1):
        assert path.exists()
