"""The `lorry` command as a process, for a registry that runs elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.support.registry_server import TOKEN


class Lorry:
    """Runs `lorry …`, without a terminal."""

    def __init__(self, *, registry_url: str, database_url: str, home: Path) -> None:
        self.environment = {
            "LORRY_HOME": str(home),
            "LORRY_DATABASE_URL": database_url,
            "LORRY_S3_ENDPOINT_URL": "http://127.0.0.1:1",
            "LORRY_REGISTRY_URL": registry_url,
            "LORRY_REGISTRY_TOKEN": TOKEN,
        }

    async def __call__(self, *arguments: str, columns: int = 200) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lorry.cli", *arguments),
            env=os.environ | self.environment | {"COLUMNS": str(columns)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told, complained = await process.communicate()
        return process.returncode or 0, told.decode(), complained.decode()

    async def json(self, *arguments: str) -> Any:
        """Return what a command prints with --json; it must succeed."""
        code, told, complained = await self(*arguments, "--json")
        assert code == 0, complained
        return json.loads(told)
