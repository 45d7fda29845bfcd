"""Correcting a user's profile: what people may do to its facts, with who did it and when."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from kit.database import Database
from serving.errors import CorrectionInvalid, CorrectionNotFound, FactNotFound
from serving.extraction.corrections.correction import Correction
from serving.extraction.corrections.matching import Prohibitions, clause_of
from serving.extraction.corrections.repository import CorrectionRepository
from serving.extraction.corrections.shown import shown_profile
from serving.extraction.profile.fact_id import fact_id
from serving.extraction.profile.profile import MAX_STATEMENT_CHARACTERS, Marked, Profile, Statement

_FACT_ID = re.compile(r"f[0-9a-f]{12}")
_MOST_WHO_CHARACTERS = 128
_MOST_IN_FORCE = 500
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Corrections:
    """What people did to the profiles of one tenant's users; each call is one transaction."""

    def __init__(self, database: Database, *, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def list(self, user: str, *, withdrawn: bool = False) -> Sequence[Correction]:
        """Return the corrections in force, the oldest first; with `withdrawn`, also those that were."""
        async with self._database.reading() as session:
            return await CorrectionRepository(session, tenant=self._tenant, user=user).list(withdrawn=withdrawn)

    async def edit(self, user: str, fact: str, *, text: str, by: str) -> Correction:
        """Put `text` in the place of a fact that the profile states now.

        Args:
            user: whose profile.
            fact: the fact's id, or its text.
            text: one line, at most 400 characters.
            by: who does it.

        Raises:
            FactNotFound: when the profile does not state it.
            CorrectionInvalid: when the text is empty, too long, not one line, or forbidden by another correction.
        """
        text, by = _line(text, field="text", most=MAX_STATEMENT_CHARACTERS), _who(by)
        async with self._database.transaction() as session:
            repository = CorrectionRepository(session, tenant=self._tenant, user=user)
            await repository.lock()
            await _require_room(repository)
            topic, statement = _require(await shown_profile(session, self._tenant, user), fact, user=user)
            if Prohibitions(await repository.list()).forbid(text):
                raise CorrectionInvalid("another correction forbids that; withdraw it first", field="text")
            edited = Statement(
                id=statement.id,
                text=text,
                wording="person",
                confidence=1.0,
                # Replaced by the correction's own mark whenever it is shown.
                correction=Marked(correction_id=1, kind="edited", by=by, at=datetime.now(UTC)),
            )
            return await repository.add(
                kind="edit", fact_id=statement.id, text=await _original(repository, statement), topic=topic,
                statement=edited, by=by,
            )  # fmt: skip

    async def confirm(self, user: str, fact: str, *, by: str) -> Correction:
        """Say that a fact which the profile states now is true: it stays while the words that it quotes are there.

        Raises:
            FactNotFound: when the profile does not state it.
            CorrectionInvalid: when a person wrote it, who need not be confirmed.
        """
        by = _who(by)
        async with self._database.transaction() as session:
            repository = CorrectionRepository(session, tenant=self._tenant, user=user)
            await repository.lock()
            await _require_room(repository)
            topic, statement = _require(await shown_profile(session, self._tenant, user), fact, user=user)
            if statement.wording == "person":
                raise CorrectionInvalid("a person wrote that already, so there is nothing to confirm", field="fact")
            kept = statement.model_copy(update={"correction": None})
            return await repository.add(
                kind="confirm", fact_id=statement.id, text=statement.text, topic=topic, statement=kept, by=by
            )

    async def forbid(self, user: str, fact: str, *, by: str) -> Correction:
        """Forbid a fact, also in other words and as a quotation, from now on.

        Args:
            user: whose profile.
            fact: the id of a fact that the profile states, or a statement in words, stated or not.
            by: who does it.

        Raises:
            FactNotFound: when it is an id that the profile does not have.
            CorrectionInvalid: when the words are about nothing that could be recognised.
        """
        by = _who(by)
        async with self._database.transaction() as session:
            repository = CorrectionRepository(session, tenant=self._tenant, user=user)
            await repository.lock()
            await _require_room(repository)
            found = _find(await shown_profile(session, self._tenant, user), fact)
            if found is None and _FACT_ID.fullmatch(fact):
                raise _not_found(fact, user)
            text = found[1].text if found else _line(fact, field="fact", most=MAX_STATEMENT_CHARACTERS)
            if not clause_of(text).core:
                raise CorrectionInvalid(
                    "say what must not be stated: there is no word in it to know it by", field="fact"
                )
            if found is not None and found[1].wording == "person":
                # What was edited away must not come back either.
                await self._forbid_original(repository, found[1], by=by)
            return await repository.add(
                kind="forbid", fact_id=fact_id(text), text=text, topic=None, statement=None, by=by
            )

    async def withdraw(self, user: str, correction_id: int, *, by: str) -> None:
        """Take a correction back; it stays in the list of those that were.

        Raises:
            CorrectionNotFound: when the user has no such correction in force.
        """
        async with self._database.transaction() as session:
            repository = CorrectionRepository(session, tenant=self._tenant, user=user)
            if not await repository.withdraw(id=correction_id, by=_who(by)):
                raise CorrectionNotFound(f"user {user!r} has no correction {correction_id} in force", field="id")

    @staticmethod
    async def _forbid_original(repository: CorrectionRepository, statement: Statement, *, by: str) -> None:
        original = next((c for c in await repository.list() if c.fact_id == statement.id and c.kind == "edit"), None)
        if original is not None:
            await repository.add(
                kind="forbid", fact_id=original.fact_id, text=original.text, topic=None, statement=None, by=by
            )


async def _require_room(repository: CorrectionRepository) -> None:
    """Refuse one too many: all of them are laid over the profile whenever it is shown."""
    if len(await repository.list()) >= _MOST_IN_FORCE:
        raise CorrectionInvalid(f"a profile has at most {_MOST_IN_FORCE} corrections in force; withdraw some first")


def _find(profile: Profile | None, fact: str) -> tuple[str, Statement] | None:
    wanted = " ".join(fact.split()).casefold()
    for section, statement in profile.statements() if profile is not None else ():
        if statement.id == fact or " ".join(statement.text.split()).casefold() == wanted:
            return section.topic, statement
    return None


def _require(profile: Profile | None, fact: str, *, user: str) -> tuple[str, Statement]:
    found = _find(profile, fact)
    if found is None:
        raise _not_found(fact, user)
    return found


def _not_found(fact: str, user: str) -> FactNotFound:
    return FactNotFound(f"the profile of {user!r} states no fact {fact[:80]!r}: name its id or its text", field="fact")


async def _original(repository: CorrectionRepository, statement: Statement) -> str:
    """Return what the adapter or the user said where an edit stands already, so that it is known again."""
    edits = (each for each in await repository.list() if each.kind == "edit" and each.fact_id == statement.id)
    return next((each.text for each in edits), statement.text)


def _line(text: str, *, field: str, most: int) -> str:
    if _CONTROL.search(text):
        raise CorrectionInvalid(f"{field} must be one line without control characters", field=field)
    line = " ".join(text.split())
    if not 1 <= len(line) <= most:
        raise CorrectionInvalid(f"{field} must have 1 to {most} characters", field=field)
    return line


def _who(by: str) -> str:
    return _line(by, field="by", most=_MOST_WHO_CHARACTERS)
