"""Adapters: which there are, in which versions, and which one serves."""

from __future__ import annotations

from collections.abc import AsyncIterator

from lorry.client.awaited.wire import AsyncWire
from lorry.client.calls import adapters as calls
from registry.catalog.schemas import (
    AdapterDetail,
    AdapterSummary,
    Alias,
    Difference,
    FoundVersion,
    VersionDetail,
    VersionSummary,
)
from registry.lifecycle.schemas import CANDIDATE, AliasHistoryEntry, AliasMoved, Suspension, VersionState
from registry.manifest import DEFAULT_ADAPTER, LIVE


class AsyncAdapters:
    """The tenant's adapters. `user` may be ``~``, for what the tenant shares; a selector is an alias or a number.

    Everything raises NotFound for the first part of a name that is unknown.
    """

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire

    def list(
        self,
        *,
        user: str | None = None,
        base: str | None = None,
        alias: str | None = None,
        suspended: bool | None = None,
    ) -> AsyncIterator[AdapterSummary]:
        """Yield the tenant's adapters: only a user's, with a version for a base, with an alias, suspended or not."""
        return self._wire.pages(
            lambda cursor: calls.list_page(user=user, base=base, alias=alias, suspended=suspended, cursor=cursor)
        )

    def find_versions(
        self, *, transcript: str | None = None, base: str | None = None, user: str | None = None
    ) -> AsyncIterator[FoundVersion]:
        """Yield versions by what they came from: the id of a transcript, a base model, a user."""
        return self._wire.pages(
            lambda cursor: calls.find_versions(transcript=transcript, base=base, user=user, cursor=cursor)
        )

    async def get(self, user: str, adapter: str = DEFAULT_ADAPTER) -> AdapterDetail:
        """Return one adapter: aliases, live version, versions by state."""
        return await self._wire.send(calls.get(user, adapter))

    def versions(self, user: str, adapter: str = DEFAULT_ADAPTER) -> AsyncIterator[VersionSummary]:
        """Yield an adapter's versions in every state, the newest first."""
        return self._wire.pages(lambda cursor: calls.versions(user, adapter, cursor=cursor))

    async def version(self, user: str, selector: str = LIVE, *, adapter: str = DEFAULT_ADAPTER) -> VersionDetail:
        """Return everything that is known of one version, whatever its state."""
        return await self._wire.send(calls.version(user, adapter, selector))

    async def difference(self, user: str, *, old: str, new: str = LIVE, adapter: str = DEFAULT_ADAPTER) -> Difference:
        """Return what changed between two versions: configuration, files, lineage, evaluation."""
        return await self._wire.send(calls.difference(user, adapter, old=old, new=new))

    def history(
        self, user: str, *, alias: str | None = None, adapter: str = DEFAULT_ADAPTER
    ) -> AsyncIterator[AliasHistoryEntry]:
        """Yield the moves of one alias, or of all, the newest first."""
        return self._wire.pages(lambda cursor: calls.history(user, adapter, alias=alias, cursor=cursor))

    async def get_alias(self, user: str, alias: str = LIVE, *, adapter: str = DEFAULT_ADAPTER) -> Alias:
        """Return which version an alias names."""
        return await self._wire.send(calls.get_alias(user, adapter, alias))

    async def move_alias(
        self,
        user: str,
        alias: str,
        *,
        version_id: str,
        expected_version_id: str | None,
        adapter: str = DEFAULT_ADAPTER,
        why: str = "",
    ) -> Alias:
        """Move an alias by compare-and-swap, if the tenant's gate lets it; None expects that there is none yet.

        Raises:
            Conflict: when it names something else than expected, or the gate is closed.
        """
        call = calls.move_alias(
            user, adapter, alias, version_id=version_id, expected_version_id=expected_version_id, why=why
        )
        return await self._wire.send(call)

    async def promote(
        self,
        user: str,
        *,
        source: str = CANDIDATE,
        target: str = LIVE,
        version_id: str | None = None,
        expected_version_id: str | None = None,
        adapter: str = DEFAULT_ADAPTER,
        why: str = "",
    ) -> AliasMoved:
        """Let one alias name what another names, if the tenant's gate lets it; asking again is no error.

        Args:
            user: whose.
            source: the alias that names the version now.
            target: the alias that is to name it.
            version_id: what you saw `source` name; None = whatever it names.
            expected_version_id: what you saw `target` name; None = whatever it names.
            adapter: which of theirs.
            why: for the audit trail.

        Raises:
            Conflict: when either names something else than you saw, or the gate is closed.
        """
        call = calls.promote(
            user,
            adapter,
            source=source,
            target=target,
            version_id=version_id,
            expected_version_id=expected_version_id,
            why=why,
        )
        return await self._wire.send(call)

    async def rollback(
        self,
        user: str,
        *,
        alias: str = LIVE,
        expected_version_id: str | None = None,
        adapter: str = DEFAULT_ADAPTER,
        why: str = "",
    ) -> AliasMoved:
        """Let an alias name what it named before; with `expected_version_id`, only if it names that now.

        Raises:
            Conflict: when it names something else, or there is nothing to go back to.
        """
        call = calls.rollback(user, adapter, alias=alias, expected_version_id=expected_version_id, why=why)
        return await self._wire.send(call)

    async def suspend(self, user: str, *, why: str, adapter: str = DEFAULT_ADAPTER) -> Suspension:
        """Stop an adapter from serving, everywhere and within seconds."""
        return await self._wire.send(calls.suspend(user, adapter, why=why))

    async def resume(self, user: str, *, why: str, adapter: str = DEFAULT_ADAPTER) -> AdapterDetail:
        """Let a suspended adapter serve again."""
        return await self._wire.send(calls.resume(user, adapter, why=why))

    async def suspend_version(
        self, user: str, selector: str, *, why: str, adapter: str = DEFAULT_ADAPTER
    ) -> VersionState:
        """Stop one version from serving, everywhere and within seconds.

        Raises:
            Conflict: when it is in no state from which that can be.
        """
        return await self._wire.send(calls.steer_version(user, adapter, selector, "suspend", why=why))

    async def resume_version(
        self, user: str, selector: str, *, why: str, adapter: str = DEFAULT_ADAPTER
    ) -> VersionState:
        """Let a suspended version serve again. Raises as `suspend_version`."""
        return await self._wire.send(calls.steer_version(user, adapter, selector, "resume", why=why))

    async def retire_version(
        self, user: str, selector: str, *, why: str, adapter: str = DEFAULT_ADAPTER
    ) -> VersionState:
        """Take a version that no alias names out of use for good. Raises as `suspend_version`."""
        return await self._wire.send(calls.steer_version(user, adapter, selector, "retire", why=why))
