"""Which bank a tenant's users are asked: the tenant's own, or the one that Lorry ships."""

from __future__ import annotations

from collections.abc import Sequence

from kit.database import Database
from serving.errors import BankInvalid
from serving.extraction.bank.assembled import Assembled, Named
from serving.extraction.bank.bank import Bank, standard_bank
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
        self._assembled = Assembled(standard or standard_bank())

    async def bank_of(self, tenant: str) -> Bank:
        """Return the bank that the tenant's users are asked now.

        Raises:
            BankInvalid: when the tenant's own cannot be used with this release any more; it says why.
        """
        kept = await self.kept(tenant)
        if kept is None or kept.document is None:
            return self._assembled.standard
        return await self._assembled.bank(kept.document, name=f"the bank of {tenant}")

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
        bank = None if document is None else await self._assembled.bank(document)
        named = None if bank is None else Named(name=bank.name, version=bank.version)
        # Read before anybody is held off: what takes long is known by then.
        await self._names_of(await self.revisions(tenant), but=document)
        async with self._database.transaction() as session:
            repository = BankRepository(session, tenant=tenant)
            await repository.lock()
            revisions = await repository.revisions(limit=_MOST_REVISIONS)
            newest = revisions[0] if revisions else None
            if newest is not None and newest.document == document:
                return newest
            if named is not None:
                _refuse_known(named, await self._names_of(revisions, but=document))
            return await repository.add(document, revision=newest.revision + 1 if newest else 1, by=by)

    async def _names_of(self, revisions: Sequence[KeptBank], *, but: str | None) -> dict[int, Named]:
        """Return what the banks of other documents are called, by revision.

        What cannot be used any more made no profile that another could be mistaken for.
        """
        others = [kept for kept in revisions if kept.document is not None and kept.document != but]
        found = [(kept.revision, await self._assembled.named(kept.document or "")) for kept in others]
        return {revision: named for revision, named in found if named is not None}


def _refuse_known(named: Named, others: dict[int, Named]) -> None:
    for revision, other in others.items():
        if other == named:
            raise BankInvalid(
                f"version: {named.version!r} is revision {revision} with other content; profiles name the "
                "version that they were made with, so give the changed bank another",
                field="version",
            )
