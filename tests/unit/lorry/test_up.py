from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from lorry.commands.up import _ask_to_stop
from lorry.home import Home


async def test_ctrl_c_stops_at_once_when_nobody_uses_the_parts(tmp_path: Path) -> None:
    stop = asyncio.Event()
    _ask_to_stop(Home.open(tmp_path), stop)
    assert stop.is_set()


async def test_ctrl_c_names_who_would_fail_and_stops_the_second_time(tmp_path: Path) -> None:
    home, stop, loop = Home.open(tmp_path), asyncio.Event(), asyncio.get_running_loop()
    try:
        with home.guest():
            _ask_to_stop(home, stop)
            assert not stop.is_set()
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.wait_for(stop.wait(), 5)
    finally:
        loop.remove_signal_handler(signal.SIGINT)
