from __future__ import annotations

import asyncio

import pytest

from lorry.commands.up import let_end, tell_who_goes_on
from lorry.local.ledger import User


def test_what_other_commands_use_is_said_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    tell_who_goes_on([])
    assert capsys.readouterr().err == ""
    tell_who_goes_on([User(key="7.a", pid=7, command="lorry jobs work", parts=("postgres", "registry"))])
    assert capsys.readouterr().err == (
        "postgres, registry go on for other commands and end with the last of them: pid 7, `lorry jobs work`\n"
    )


async def test_the_conductor_may_end_its_step_and_is_cut_off_when_that_takes_long() -> None:
    ended = []

    async def step(seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append(seconds)

    await let_end(asyncio.create_task(step(0.01)), seconds=60)
    assert ended == [0.01]
    endless = asyncio.create_task(step(3600))
    await let_end(endless, seconds=0.01)
    assert (endless.cancelled(), ended) == (True, [0.01])
