from __future__ import annotations

import pytest

from lorry.commands.up import tell_who_goes_on
from lorry.local.ledger import User


def test_what_other_commands_use_is_said_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    tell_who_goes_on([])
    assert capsys.readouterr().err == ""
    tell_who_goes_on([User(key="7.a", pid=7, command="lorry jobs work", parts=("postgres", "registry"))])
    assert capsys.readouterr().err == (
        "postgres, registry go on for other commands and end with the last of them: pid 7, `lorry jobs work`\n"
    )
