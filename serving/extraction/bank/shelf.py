"""Which bank a tenant's users are asked: the tenant's own, or the one that Lorry ships."""

from __future__ import annotations

from collections.abc import Sequence

from kit.database import Database
from serving.errors import BankInvalid
from serving.extraction.bank.bank import Bank, standard_bank
from serving.extraction.bank.extension import assemble
from serving.extraction.bank.repository import BankRepository, KeptBank

_MOST_REVISIONS = 100


class BankShelf:
    """Every tenant's bank, each revision kept."""

    def __init__(self, database: Database, *, standard: Bank | None = None) -> None:
        """Use a database.

        Args:
            database: where the tenants' banks are.
            standard: asked where a tenant has none, and extended where it says so; None = the one that Lorry ships.
        """
        self._database = database
        self._standard = standard or standard_bank()

    async def bank_of(self, tenant: str) -> Bank:
        """Return the bank that the tenant's users are asked now.

        Raises:
            BankInvalid: when the tenant's own cannot be used with this release any more; it says why.
        """
        kept = await self.kept(tenant)
        if kept is None or kept.document is None:
            return self._standard
        return assemble(kept.document, standard=self._standard, name=f"the bank of {tenant}")

    async def kept(self, tenant: str) -> KeptBank | None:
        """Return the newest revision of the tenant's own bank as it was written; None when there never was one."""
        async with self._database.reading() as session:
            revisions = await BankRepository(session, tenant=tenant).revisions(limit=1)
        return revisions[0] if revisions else None

    async def revisions(self, tenant: str) -> Sequence[KeptBank]:
        """Return the newest hundred revisions, the newest first."""
        async with self._database.reading() as session:
            return await BankRepository(session, tenant=tenant).revisions(limit=_MOST_REVISIONS)

    async def put(self, tenant: str, document: str | None, *, by: str) -> KeptBank:
        """Make a document the tenant's bank from now on, or with None go back to the standard one.

        The same document again changes nothing and returns the revision that holds it already.

        Raises:
            BankInvalid: naming the entry and the reason; a changed document must have a version of its own.
        """
        bank = None if document is None else assemble(document, standard=self._standard)
        async with self._database.transaction() as session:
            repository = BankRepository(session, tenant=tenant)
            await repository.lock()
            revisions = await repository.revisions(limit=_MOST_REVISIONS)
            newest = revisions[0] if revisions else None
            if newest is not None and newest.document == document:
                return newest
            if bank is not None:
                self._refuse_known_version(bank, document, revisions)
            return await repository.add(document, revision=newest.revision + 1 if newest else 1, by=by)

    def _refuse_known_version(self, bank: Bank, document: str | None, revisions: Sequence[KeptBank]) -> None:
        for kept in revisions:
            if kept.document is None or kept.document == document:
                continue
            try:
                other = assemble(kept.document, standard=self._standard)
            except BankInvalid:
                continue  # what cannot be used any more made no profile that this one could be mistaken for
            if (other.name, other.version) == (bank.name, bank.version):
                raise BankInvalid(
                    f"version: {bank.version!r} is revision {kept.revision} with other content; profiles name the "
                    "version that they were made with, so give the changed bank another",
                    field="version",
                )
