"""Tenants' banks, put together once: reading YAML takes a second, in which nothing else should have to wait."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from kit.canonical import sha256_bytes
from serving.errors import BankInvalid
from serving.extraction.bank.bank import Bank
from serving.extraction.bank.extension import assemble

_MOST_BANKS = 64
_MOST_NAMES = 20_000


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a profile says of the bank that it was made with."""

    name: str
    version: str


class Assembled:
    """What documents make with one standard bank; the latest banks are remembered, and the names of many more."""

    def __init__(self, standard: Bank) -> None:
        self.standard = standard
        self._banks: OrderedDict[str, Bank] = OrderedDict()
        self._names: OrderedDict[str, Named | None] = OrderedDict()
        self._turn = asyncio.Lock()

    async def bank(self, document: str, *, name: str = "the bank") -> Bank:
        """Return the bank that a document makes, put together in a thread, one after the other.

        Raises:
            BankInvalid: naming `name`, the entry and the reason.
        """
        digest = sha256_bytes(document.encode("utf-8", "surrogatepass"))
        if (known := self._banks.get(digest)) is not None:
            self._banks.move_to_end(digest)
            return known
        async with self._turn:
            if (known := self._banks.get(digest)) is not None:
                return known
            try:
                made = await asyncio.to_thread(assemble, document, standard=self.standard, name=name)
            except BankInvalid:
                self._remember(digest, None)
                raise
        self._banks[digest] = made
        self._remember(digest, Named(name=made.name, version=made.version))
        while len(self._banks) > _MOST_BANKS:
            self._banks.popitem(last=False)
        return made

    async def named(self, document: str) -> Named | None:
        """Return what a document's bank is called; None when it makes none (any more)."""
        digest = sha256_bytes(document.encode("utf-8", "surrogatepass"))
        if digest in self._names:
            return self._names[digest]
        try:
            made = await self.bank(document)
        except BankInvalid:
            return None
        return Named(name=made.name, version=made.version)

    def _remember(self, digest: str, named: Named | None) -> None:
        self._names[digest] = named
        while len(self._names) > _MOST_NAMES:
            self._names.popitem(last=False)
