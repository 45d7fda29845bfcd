from __future__ import annotations

import pytest

from kit.errors import DatabaseUnavailable
from lorry.patience import patiently


async def test_a_database_that_comes_back_is_waited_for_and_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    answers = [DatabaseUnavailable("PostgreSQL did not answer"), 7]

    async def work() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await patiently(work, then="look again") == 7
    told = capsys.readouterr().err
    assert "PostgreSQL did not answer; waiting for it" in told
    assert "answers again" in told


async def test_a_database_that_stays_away_is_given_up_with_what_to_do() -> None:
    async def work() -> int:
        raise DatabaseUnavailable("PostgreSQL did not answer")

    with pytest.raises(DatabaseUnavailable, match=r"did not answer, for 0 s; look again with `lorry jobs`"):
        await patiently(work, then="look again with `lorry jobs`", patience_seconds=0.1)
