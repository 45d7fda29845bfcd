"""Trainings whose questions are written by Claude: by the local server that speaks its protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.claude_server import KEY, ClaudeServer
from tests.support.registry_server import serving
from tests.support.training_jobs import Harbour

CLAUDE = {"dataset.writer": "claude"}


@asynccontextmanager
async def serving_claude(harbour: Harbour, server: ClaudeServer, **changes: str) -> AsyncIterator[ClaudeServer]:
    """Serve it, and tell workers that start meanwhile where it is; `changes` are further settings of theirs."""
    async with serving(server.app()) as url:
        harbour.changes |= {"LORRY_WRITER_URL": url, "LORRY_WRITER_API_KEY": KEY, **changes}
        yield server
