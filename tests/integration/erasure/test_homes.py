"""A home clears itself: commands that work on a user's files are stopped, batches that they began are deleted."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import SecretStr

from lorry.erasure.files import RIVALS, UserFiles
from lorry.home import Home
from tests.support.claude_server import KEY, Batch, ClaudeServer
from tests.support.registry_server import serving
from training.config import DatasetConfig
from training.writers.cost import FREE
from training.writers.factory import make_writer
from training.writers.settings import WriterSettings
from training.writers.state import WriterState

_WORKS = """
import pathlib, sys, time
from lorry.home import Home
Home.open(pathlib.Path(sys.argv[1])).user_folder("runs", tenant="default", user="ann")
print("works", flush=True)
time.sleep(600)
"""


async def test_a_command_that_works_on_the_users_files_is_told_to_stop(home: Home) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _WORKS, str(home.path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"works\n"
    files = UserFiles(home, tenant="default", user="ann")
    (home.folder("runs", "default", "ann") / "adapter.json").write_text("words")
    assert await UserFiles(home, tenant="default", user="bob").clear(None) == (0, [])
    removed, waits_for = await files.clear(None)
    assert (removed, waits_for) == (0, [f"command {process.pid} on this machine, which was told to stop"])
    assert await process.wait() != 0
    assert await files.clear(None) == (1, [])
    assert not (home.path / "runs" / "default" / "ann").exists()


async def test_adapters_that_a_killed_command_compared_with_are_removed(home: Home) -> None:
    left = home.folder(RIVALS, "999999999-abc", "v" + "0" * 32)
    (left / "adapter_config.json").write_text("words")
    assert await UserFiles(home, tenant="default", user="ann").clear(None) == (0, [])
    assert list((home.path / RIVALS).iterdir()) == []


async def test_a_batch_that_a_command_began_is_deleted_at_the_service(home: Home) -> None:
    claude = ClaudeServer(looks=1_000_000)
    async with serving(claude.app()) as url:
        settings = WriterSettings(
            writer_url=url, writer_api_key=SecretStr(KEY), writer_poll_seconds=0.1, writer_longest_pause_seconds=0.2
        )
        name = make_writer(settings, DatasetConfig(writer="claude")).name
        state = WriterState(writer=name, plan="p", phase="running", spent=FREE)
        claude.batches["msgbatch_1"] = _batch("msgbatch_1")
        folder = home.folder("datasets", "default", "ann", "writing", "abc")
        (folder / "state.json").write_text(
            json.dumps(replace(state, batch="msgbatch_1", batches=("msgbatch_1",)).to_json())
        )
        files = UserFiles(home, tenant="default", user="ann")
        assert (await files.clear(settings))[1] == [
            "batches at a question writer's service, which are deleted when they end"
        ]
        assert claude.canceled == ["msgbatch_1"]
        claude.end(claude.batches["msgbatch_1"])
        assert await files.clear(settings) == (1, [])
        assert claude.deleted == ["msgbatch_1"]


def _batch(name: str) -> Batch:

    return Batch(id=name, requests=[], created_at=datetime.now(UTC), looks_left=1_000_000)
