"""A part that runs elsewhere and does not answer: the command says so, with exit code 5."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kit.database import Database
from kit.errors import DatabaseUnavailable
from lorry.schema import migrate
from tests.support.command import Lorry
from tests.support.nursery import Nursery


@pytest.mark.parametrize("arguments", [("status",), ("import", "ada", "no-file"), ("profile", "ada")])
async def test_a_database_that_does_not_answer_is_told_in_a_line(
    nursery: Nursery, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    nowhere = "postgresql+asyncpg://ada:secret@127.0.0.1:9/lorry"
    lorry = Lorry(nursery, registry_url="http://127.0.0.1:9", database_url=nowhere, home=tmp_path)
    code, told, complained = await lorry(*arguments)
    assert (code, told) == (5, ""), complained
    assert complained.splitlines()[-1].startswith("error: PostgreSQL did not answer")


async def test_a_database_that_is_not_there_is_refused_by_name(database: Database) -> None:
    url = re.sub(r"/[^/?]+\?", "/never_made?", database.settings.database_url)
    other = Database(database.settings.model_copy(update={"database_url": url}))
    try:
        with pytest.raises(DatabaseUnavailable, match="refused the connection"):
            await migrate(other)
    finally:
        await other.close()
