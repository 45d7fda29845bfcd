"""Finding the user's own words: full-text search over their turns.

A query is plain words, never query syntax: quotes, operators and brackets in it mean nothing. A turn
answers when it holds any of the query's words, by stem and without stop words; turns that
hold more of them come first.
"""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from kit.names import check_name
from transcripts.repository import Order, Passage, TranscriptRepository

__all__ = ["Order", "Passage", "search_user_turns"]

_QUERY_CHARACTERS = 10_000
_QUERY_WORDS = 256


async def search_user_turns(
    session: AsyncSession,
    tenant: str,
    user: str,
    query: str,
    limit: int = 10,
    *,
    min_match: int = 1,
    order: Order = "best",
) -> list[Passage]:
    """Return the turns of this user, and of nobody else, that share words with `query`, best first.

    What was said in a conversation that went on is found once, in its last state.

    Args:
        session: an open session.
        tenant: whose user it is.
        user: whose turns are searched. What others said in the conversation is not.
        query: words of any length; the first 10 000 characters and 256 distinct words count.
        limit: most passages to return.
        min_match: how many distinct words (by stem) a turn must hold; more than the query has finds nothing.
        order: `newest` and `oldest` first, those without a time last, give only turns that hold all words of the query.

    Returns:
        At most `limit` passages by number of matched words, then rank, or by time, then transcript and turn; none
        when the query has no word but stop words. Of a turn over 65 536 characters only the beginning is searched.
    """
    check_name(tenant, field="tenant")
    check_name(user, field="user_id")
    repository = TranscriptRepository(session)
    words = (await repository.words(_storable(query[:_QUERY_CHARACTERS])))[:_QUERY_WORDS]
    if not words or limit < 1 or min_match > len(words):
        return []
    least = max(min_match, 1) if order == "best" else len(words)
    return await repository.search(words, tenant=tenant, user=user, min_match=least, limit=limit, order=order)


def _storable(query: str) -> str:
    """Replace what PostgreSQL's text cannot hold, so that any string is a query."""
    return query.replace("\0", " ").encode(errors="replace").decode()
