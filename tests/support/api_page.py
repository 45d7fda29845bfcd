"""The examples of docs/api.md: found by section, and run as they stand against a gateway."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from tests.support.gateway_server import Gateway

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
NEED_WORKERS = "Batch extractions"
"""The section whose examples need somebody who extracts."""


def examples(language: str) -> dict[str, list[str]]:
    """Return the examples in `language`, by the section in which they stand; every section with any has its list."""
    found = {}
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        blocks = re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)
        if blocks:
            found[section.partition("\n")[0]] = blocks
    return found


async def run_python(gateway: Gateway, example: str) -> str:
    """Run an example in Python; return what it prints."""
    return await _run(gateway, sys.executable, "-c", example)


async def run_bash(gateway: Gateway, example: str) -> str:
    """Run an example in a shell that ends where anything fails; return what it prints."""
    return await _run(gateway, "bash", "-euo", "pipefail", "-c", example)


async def _run(gateway: Gateway, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "LORRY_URL": gateway.url,
            "LORRY_KEY": gateway.key,
        },
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"{out.decode()}\n{err.decode()}"
    return out.decode()
