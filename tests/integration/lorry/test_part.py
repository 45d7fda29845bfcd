import os
import socket
import sys
from pathlib import Path

import pytest

from lorry.errors import PartDied, PartUnhealthy, PortInUse
from lorry.local.part import Part, start_part
from tests.support.waiting import until


def part(tmp_path: Path, code: str, *, healthy: bool = True, **changes: object) -> Part:
    async def is_healthy() -> bool:
        return healthy

    return Part(
        name="sample",
        argv=(sys.executable, "-c", code),
        log_path=tmp_path / "sample.log",
        address="",
        is_healthy=is_healthy,
        **changes,
    )


async def test_a_port_in_use_is_named_with_the_process_that_holds_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"port {port}, which sample needs, is in use by .*pid {os.getpid()}"):
            await start_part(part(tmp_path, "", ports=(port,)))


async def test_a_part_that_dies_while_starting_is_reported_with_its_log(tmp_path: Path) -> None:
    running = await start_part(part(tmp_path, "print('no such table'); raise SystemExit(3)", healthy=False))
    with pytest.raises(PartDied, match=r"ended with code 3 while starting[\s\S]*no such table"):
        await running.wait_until_healthy()


async def test_a_part_that_never_becomes_healthy_is_reported(tmp_path: Path) -> None:
    code = "import time; time.sleep(60)"
    running = await start_part(part(tmp_path, code, healthy=False, start_timeout_seconds=0.5))
    try:
        with pytest.raises(PartUnhealthy, match="was not healthy after"):
            await running.wait_until_healthy()
    finally:
        await running.stop()


async def test_stopping_takes_the_children_of_a_part_along(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(child.pid, flush=True); time.sleep(60)"
    )
    running = await start_part(part(tmp_path, code))
    child = int(await _logged(tmp_path, "\n"))
    await running.stop()
    assert running.exit_code is not None
    await _gone(child)


async def test_a_part_that_ignores_the_request_to_stop_is_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    running = await start_part(part(tmp_path, code, stop_timeout_seconds=0.5))
    await _logged(tmp_path, "on")
    await running.stop()
    assert running.exit_code == -9


async def _logged(tmp_path: Path, text: str) -> str:
    log = tmp_path / "sample.log"
    await until(lambda: text in log.read_text(), within_seconds=60)
    return log.read_text()


async def _gone(pid: int) -> None:
    def has_ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"  # waits for its reaper
        except (FileNotFoundError, ProcessLookupError):
            return True

    await until(has_ended)
