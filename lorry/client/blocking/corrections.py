# Made by scripts/blocking_client.py of lorry/client/awaited: change it there.
"""Corrections: what people do to facts of a profile, at once and in every later profile."""

from __future__ import annotations

from lorry.client.blocking.wire import Wire
from lorry.client.calls import corrections as calls
from lorry.client.results import Correction


class Corrections:
    """The corrections of the tenant's users; `by` is your own name for who makes one."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list(self, user: str, *, withdrawn: bool = False) -> tuple[Correction, ...]:
        """Return what was corrected, the oldest first; with `withdrawn`, also what is no longer in force."""
        return self._wire.send(calls.list_all(user, withdrawn=withdrawn))

    def edit(self, user: str, fact: str, *, text: str, by: str) -> Correction:
        """Put other words in the place of a fact, which is named by its id or its text.

        Raises:
            NotFound: when the profile does not state it.
            Invalid: when it cannot be corrected like this.
        """
        return self._wire.send(calls.correct(user, "edit", fact, text=text, by=by))

    def confirm(self, user: str, fact: str, *, by: str) -> Correction:
        """Say that a fact is true. Raises as `edit`."""
        return self._wire.send(calls.correct(user, "confirm", fact, text=None, by=by))

    def forbid(self, user: str, fact: str, *, by: str) -> Correction:
        """Have a fact, or any statement in words, said no more, in these words or others.

        Raises:
            NotFound: for the id of a fact that the profile does not state.
            Invalid: when it cannot be forbidden like this.
        """
        return self._wire.send(calls.correct(user, "forbid", fact, text=None, by=by))

    def withdraw(self, user: str, correction_id: int, *, by: str) -> None:
        """Take a correction back; it stays in the list of those withdrawn.

        Raises:
            NotFound: when none of that id is in force.
        """
        self._wire.send(calls.withdraw(user, correction_id, by=by))
