"""The `lorry` command as a process, for a registry that runs elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tests.support.nursery import Nursery
from tests.support.registry_server import TOKEN


class Lorry:
    """Runs `lorry …`, without a terminal."""

    def __init__(self, nursery: Nursery, *, registry_url: str, database_url: str, home: Path) -> None:
        self.environment = {
            "LORRY_HOME": str(home),
            "LORRY_DATABASE_URL": database_url,
            "LORRY_S3_ENDPOINT_URL": "http://127.0.0.1:1",
            "LORRY_REGISTRY_URL": registry_url,
            "LORRY_REGISTRY_TOKEN": TOKEN,
        }
        self._nursery = nursery

    async def __call__(self, *arguments: str, columns: int = 200) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error."""
        environment = os.environ | self.environment | {"COLUMNS": str(columns)}
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            process = await asyncio.to_thread(
                self._nursery.start, "lorry.cli", *arguments, environment=environment, out=out, err=err
            )
            while (code := process.poll()) is None:  # noqa: ASYNC110 - a child of the nursery's tells only that of its end
                await asyncio.sleep(0.01)
            return code, out.read_text(), err.read_text()

    async def json(self, *arguments: str) -> Any:
        """Return what a command prints with --json; it must succeed."""
        code, told, complained = await self(*arguments, "--json")
        assert code == 0, complained
        return json.loads(told)
