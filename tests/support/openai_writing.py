"""An endpoint of the OpenAI chat protocol that a harbour's workers write their questions with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.claude_server import KEY, Failure
from tests.support.openai_server import OpenAIServer
from tests.support.registry_server import serving
from tests.support.training_jobs import Harbour
from tests.support.writers import conversations


@asynccontextmanager
async def asking_openai(harbour: Harbour, *, answered: int, **changes: str) -> AsyncIterator[OpenAIServer]:
    """Serve one that has no answer to more than the first requests, for now, to workers that write about ann.

    `changes` are further settings of theirs.
    """
    server, let_by = OpenAIServer(), iter(range(answered))
    server.fails = lambda body: Failure(status=503) if next(let_by, None) is None else None
    await harbour.add_user("ann", transcripts=conversations())
    async with serving(server.app()) as url:
        harbour.changes |= {
            "LORRY_WRITER_URL": f"{url}/v1",
            "LORRY_WRITER_API_KEY": KEY,
            "LORRY_WRITER_MODEL": "m",
            "LORRY_WRITER_ATTEMPTS": "20",
            "LORRY_WRITER_LONGEST_PAUSE_SECONDS": "0.2",
            **changes,
        }
        yield server
