"""Search over one user's own turns, each in a short transaction of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kit.database import Database
from transcripts.search import Order, Passage, search_user_turns


class SearchUserTurns(Protocol):
    """Finds one user's own turns; the user is bound by whoever makes it."""

    async def __call__(self, query: str, *, limit: int, order: Order = "best") -> Sequence[Passage]:
        """Return at most `limit` turns that share words with `query`, best first.

        The `newest` and the `oldest` first are those that hold all of its words.
        """


class TurnSearch:
    """PostgreSQL's full-text search, bound to one user."""

    def __init__(self, database: Database, *, tenant: str, user: str) -> None:
        self._database = database
        self._tenant = tenant
        self._user = user

    async def __call__(self, query: str, *, limit: int, order: Order = "best") -> Sequence[Passage]:
        """Return at most `limit` turns that share words with `query`, best first; see `SearchUserTurns`."""
        async with self._database.reading() as session:
            return await search_user_turns(session, self._tenant, self._user, query, limit, order=order)
