# Made by scripts/blocking_client.py of lorry/client/awaited: change it there.
"""Profiles: read, extracted, made short for an agent, compared."""

from __future__ import annotations

from lorry.client.blocking.wire import Wire
from lorry.client.calls import profiles as calls
from lorry.client.results import Profile, ProfileDifference


class Profiles:
    """The profiles of the tenant's users."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def get(self, user: str, *, known: Profile | None = None) -> Profile:
        """Return the newest profile.

        Args:
            user: whose.
            known: one that you have; it is returned itself when nothing has changed, and not sent again.

        Raises:
            NotFound: when there is none.
        """
        return self._wire.send(calls.get(user, known=known))

    def page(self, user: str) -> str:
        """Return the newest profile as Markdown; raises as `get`."""
        return self._wire.send(calls.page(user))

    def extract(self, user: str) -> Profile:
        """Extract a profile with the live adapter, which takes up to a minute on a CPU engine.

        Raises:
            NotFound: when the tenant knows no such user.
            Conflict: when the user has no adapter.
            Forbidden: once it is kept, when the API key may not read profiles.
        """
        return self._wire.send(calls.extract(user))

    def context(self, user: str, *, budget_tokens: int | None = None) -> str:
        """Return the newest profile as short Markdown for an agent's context window, the surest facts first.

        Args:
            user: whose.
            budget_tokens: most tokens, each taken as three bytes of UTF-8; 64 or more; None = all of it.

        Raises:
            NotFound: when there is no profile.
            Invalid: for a budget that is too small.
        """
        return self._wire.send(calls.context(user, budget_tokens=budget_tokens))

    def difference(self, user: str) -> ProfileDifference:
        """Return what changed from the profile before the newest one to the newest.

        Raises:
            NotFound: when nothing is kept of it.
        """
        return self._wire.send(calls.difference(user))
