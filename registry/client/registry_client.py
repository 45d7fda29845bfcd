"""The registry from outside: what trainers, engines and gateways use.

Needs httpx and nothing of the service's: no database driver, no S3 library, no credentials but
the bearer token. Refusals arrive as the same exceptions that the registry raised. Every call can
be repeated, so each is, a few times, while the registry does not answer.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from kit.names import check_name
from kit.reasons import describe
from registry.catalog.schemas import (
    AdapterDetail,
    AdapterPage,
    Alias,
    Difference,
    FoundVersionPage,
    Resolution,
    VersionDetail,
    VersionPage,
    VersionSummary,
)
from registry.client.engines import EnginesClient, Presence
from registry.client.lifecycle import LifecycleClient
from registry.client.transfer import install, read_through_seal
from registry.client.transport import Transport, patiently
from registry.client.uploading import send
from registry.errors import (
    AdapterNotFound,
    AliasNotFound,
    InvalidReference,
    NotServable,
)
from registry.lifecycle.schemas import AliasMove
from registry.manifest import AdapterRef, BaseIdentity, Draft, Manifest, Owner, RegisteredBase
from registry.publishing.schemas import BaseRegistration, Grant, Preference, Publication, Validation

Progress = Callable[[int, int], None]
_UNFINISHED = {"pending", "uploaded"}


class RegistryClient:
    """One connection pool to one registry; use it as an async context manager."""

    def __init__(
        self,
        *,
        url: str,
        token: str,
        actor: str = "registry-client",
        timeout_seconds: float = 30.0,
        complete_timeout_seconds: float = 600.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: where the registry listens, without ``/v1``.
            token: its bearer token; it is never sent to the object store.
            actor: the program's name in the audit trail.
            timeout_seconds: how long one attempt of a call may take.
            complete_timeout_seconds: the same for `complete`, which reads every byte.
            transport: how to reach the registry instead of by TCP.

        Raises:
            Unauthorized: for a token that cannot be sent, as an empty one.
        """
        self._transport = Transport(
            url=url, token=token, actor=actor, timeout_seconds=timeout_seconds, transport=transport
        )
        self.engines = EnginesClient(self._transport)
        self.lifecycle = LifecycleClient(self._transport)
        self._complete_timeout_seconds = complete_timeout_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    async def register_base(self, base: BaseIdentity, *, config: bytes | None = None) -> RegisteredBase:
        """Make a base model known; the same one again is no error.

        Args:
            base: what it is.
            config: its ``config.json``, word for word; without it nothing can be published for this base.

        Raises:
            BaseModelUnreadable: when the configuration is not the base's, or does not tell its sizes.
            BaseModelMismatch: when its id is taken by a base with other digests.
        """
        identity = base.model_dump(include=set(BaseIdentity.model_fields))
        registration = BaseRegistration.model_validate({**identity, "config": config.decode() if config else None})
        return await self._transport.call(RegisteredBase, "POST", "/v1/bases", body=registration)

    async def list_bases(self) -> list[RegisteredBase]:
        """Return every registered base model, by id."""
        return await self._transport.call(list[RegisteredBase], "GET", "/v1/bases")

    async def publish(self, directory: Path, *, draft: Draft, on_progress: Progress | None = None) -> Manifest:
        """Publish a directory; the same content again returns the version it already is.

        Args:
            directory: what `draft_from_directory` made `draft` from.
            draft: what is declared.
            on_progress: told (bytes sent, bytes in all) as the upload goes.

        Raises:
            VersionConflict, BaseModelNotFound, BaseModelMismatch: when the registry refuses the draft.
            ArtifactError: when files and draft do not agree, or are no servable adapter.
            NotServable: when this content is suspended.
        """
        publication = await self.begin(draft)
        if publication.state == "ready":
            return publication.manifest
        if publication.state not in _UNFINISHED:
            raise NotServable(f"this content is version {publication.version_id}, which is {publication.state}")
        await self.upload(publication, directory, on_progress=on_progress)
        return await self.complete(publication.version_id)

    async def begin(self, draft: Draft, *, preference: Preference = Preference.SEALED) -> Publication:
        """Claim a version for a draft, or find the one that has its content.

        Raises:
            AdapterInvalid, VersionConflict, BaseModelNotFound, BaseModelMismatch: when the registry refuses.
        """
        params = {"upload": preference.value}
        return await self._transport.call(Publication, "POST", "/v1/versions", body=draft, params=params)

    async def upload(self, publication: Publication, directory: Path, *, on_progress: Progress | None = None) -> None:
        """Send what the publication asks for; safe to repeat.

        Raises:
            AdapterInvalid, DigestMismatch: when the directory is not what was declared.
            RegistryUnavailable: when the object store does not answer.
        """
        await send(self._transport, publication, directory, on_progress=on_progress)

    async def complete(self, version_id: str) -> Manifest:
        """Have the upload verified and made ready; completing again is no error.

        Raises:
            VersionNotFound, ArtifactMissing, DigestMismatch, AdapterInvalid, NotServable: see the registry.
        """
        path = f"/v1/versions/{version_id}/complete"
        return await self._transport.call(Manifest, "POST", path, timeout_seconds=self._complete_timeout_seconds)

    async def resolve(self, ref: AdapterRef) -> Resolution:
        """Turn a name into the manifest of a version that may be served.

        Raises:
            AdapterNotFound, AliasNotFound, VersionNotFound, NotServable: for what cannot be served.
        """
        path = f"{_adapter_path(ref.owner, ref.adapter)}/resolution"
        return await self._transport.call(Resolution, "GET", path, params={"selector": ref.selector})

    async def show_base(self, base_id: str) -> RegisteredBase:
        """Return one base model.

        Raises:
            BaseModelNotFound: when none is registered under this id.
        """
        return await self._transport.call(RegisteredBase, "GET", f"/v1/bases/{quote(base_id)}")

    async def get_version(self, version_id: str) -> Resolution:
        """Resolve an opaque version id.

        Raises:
            VersionNotFound, NotServable: for what cannot be served.
        """
        return await self._transport.call(
            Resolution, "GET", f"/v1/versions/{check_name(version_id, field='version_id')}"
        )

    async def move_alias(
        self,
        owner: Owner,
        adapter: str,
        alias: str,
        *,
        version_id: str,
        expected_version_id: str | None,
        why: str = "",
    ) -> None:
        """Move an alias by compare-and-swap; None expects that it does not exist yet.

        Raises:
            AliasConflict: when it names something else than expected (`details["current_version_id"]`).
            AdapterNotFound, VersionNotFound, NotServable: when the version cannot be named.
        """
        try:
            move = AliasMove(version_id=version_id, expected_version_id=expected_version_id, why=why)
        except ValidationError as exc:
            first = exc.errors()[0]
            field, why = describe(first)
            raise InvalidReference(f"{field}: {why}", field=field) from exc
        await self._transport.call(Alias, "PUT", _alias_path(owner, adapter, alias), body=move)

    async def get_alias(self, owner: Owner, adapter: str, alias: str) -> str | None:
        """Return the version id that an alias names; None when there is no such alias or adapter."""
        try:
            return (await self._transport.call(Alias, "GET", _alias_path(owner, adapter, alias))).version_id
        except (AdapterNotFound, AliasNotFound):
            return None

    async def list_adapters(
        self,
        tenant: str,
        user: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        *,
        search: str | None = None,
        base: str | None = None,
        alias: str | None = None,
        state: str | None = None,
        suspended: bool | None = None,
        created_since: datetime | None = None,
    ) -> AdapterPage:
        """Return one page of a tenant's adapters; pass its `next_cursor`, with the same filters, for the next one.

        Args:
            tenant: whose adapters.
            user: only this user's; ``~`` = what the tenant shares.
            cursor: where the page before ended; None = the first page.
            limit: adapters a page, at most 1000.
            search: beginning of a user's name; or a user, ``/`` and the beginning of an adapter's name.
            base: only those with a version for this base model.
            alias: only those that have this alias.
            state: only those with a version in this state.
            suspended: only those that are suspended, or that are not.
            created_since: only those created at this time, which has an offset, or later.
        """
        since = created_since.isoformat() if created_since is not None else None
        chosen = {"user": user, "search": search, "base": base, "alias": alias, "state": state}
        given = {**chosen, "suspended": suspended, "created_since": since, "cursor": cursor, "limit": limit}
        path = f"/v1/tenants/{check_name(tenant, field='tenant')}/adapters"
        return await self._transport.call(AdapterPage, "GET", path, params=_given(given))

    async def show_adapter(self, owner: Owner, adapter: str) -> AdapterDetail:
        """Return one adapter: aliases, live version, versions by state.

        Raises:
            AdapterNotFound: when the owner has no such adapter.
        """
        return await self._transport.call(AdapterDetail, "GET", _adapter_path(owner, adapter))

    async def page_versions(
        self, owner: Owner, adapter: str, *, cursor: str | None = None, limit: int = 100
    ) -> VersionPage:
        """Return one page of an adapter's versions in every state, the newest first.

        Raises:
            AdapterNotFound: when the owner has no such adapter.
        """
        path = f"{_adapter_path(owner, adapter)}/versions"
        return await self._transport.call(VersionPage, "GET", path, params=_given({"cursor": cursor, "limit": limit}))

    async def list_versions(self, owner: Owner, adapter: str) -> list[VersionSummary]:
        """Return all of an adapter's versions in every state, the newest first.

        Raises:
            AdapterNotFound: when the owner has no such adapter.
        """
        page = await self.page_versions(owner, adapter, limit=1000)
        found = list(page.versions)
        while page.next_cursor is not None:
            page = await self.page_versions(owner, adapter, cursor=page.next_cursor, limit=1000)
            found += page.versions
        return found

    async def show_version(self, ref: AdapterRef) -> VersionDetail:
        """Return everything that is known of the version that a reference names, whatever its state.

        Raises:
            AdapterNotFound, AliasNotFound, VersionNotFound: for the first part of the name that is unknown.
        """
        path = f"{_adapter_path(ref.owner, ref.adapter)}/versions/{ref.selector}"
        return await self._transport.call(VersionDetail, "GET", path)

    async def compare_versions(self, owner: Owner, adapter: str, *, old: str, new: str) -> Difference:
        """Return what changed between two versions of an adapter, each named by number or alias.

        Raises:
            AdapterNotFound, AliasNotFound, VersionNotFound: for the first name that is unknown.
        """
        path = f"{_adapter_path(owner, adapter)}/difference"
        return await self._transport.call(Difference, "GET", path, params={"old": old, "new": new})

    async def find_versions(
        self,
        tenant: str,
        *,
        transcript: str | None = None,
        base: str | None = None,
        state: str | None = None,
        user: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> FoundVersionPage:
        """Return one page of the versions that were trained on a transcript, for a base model, of a user."""
        given = {"transcript": transcript, "base": base, "state": state, "user": user, "cursor": cursor, "limit": limit}
        path = f"/v1/tenants/{check_name(tenant, field='tenant')}/versions"
        return await self._transport.call(FoundVersionPage, "GET", path, params=_given(given))

    async def get_validation(self, version_id: str) -> Validation:
        """Return what was found when a version was completed.

        Raises:
            VersionNotFound: when there is no such version.
        """
        path = f"/v1/versions/{check_name(version_id, field='version_id')}/validation"
        return await self._transport.call(Validation, "GET", path)

    async def grant(
        self, version_id: str, *, engine: Presence | None = None, within_seconds: float = float("inf")
    ) -> Grant:
        """Return what it takes to read a version: a short-lived URL, and the key of its content.

        With an engine's token, `engine` says which one asks. A registry that does not answer is not asked again after
        `within_seconds`.

        Raises:
            VersionNotFound, NotServable: for what cannot be served.
            EngineNotFound: when that engine is not registered and alive.
            BaseModelMismatch: when it serves another base model.
            Forbidden: when an engine's token comes without `engine`.
        """
        path = f"/v1/versions/{check_name(version_id, field='version_id')}/grant"
        shown = (
            {} if engine is None else {"x-lorry-engine": engine.engine_id, "x-lorry-incarnation": engine.incarnation}
        )
        return await self._transport.call(Grant, "GET", path, headers=shown, within_seconds=within_seconds)

    async def download(self, version: Grant | Resolution, directory: Path) -> None:
        """Put a version's files into `directory`, which appears whole and verified or not at all.

        A directory that already holds exactly this version is left alone. Without a grant, one is asked for.

        Raises:
            DigestMismatch: when other bytes arrive, or the directory holds something else.
            ArtifactMissing: when the object is gone or the grant has expired.
            NotServable: when the version may not be served any more.
            RegistryUnavailable: when the object store does not answer.
        """
        grant = version if isinstance(version, Grant) else await self.grant(version.manifest.version_id)
        await patiently(lambda: install(self._transport.files, grant, directory))

    async def read_back(self, grant: Grant) -> None:
        """Read a version from the object store through its seal, and compare every digest; nothing is kept.

        Raises:
            DigestMismatch: when it is damaged.
            ArtifactMissing: when it is gone, or the grant has expired.
            RegistryUnavailable: when the object store does not answer.
        """
        await patiently(lambda: read_through_seal(self._transport.files, grant, looks={}))


def _adapter_path(owner: Owner, adapter: str) -> str:
    return f"/v1/tenants/{owner.tenant}/users/{owner.user}/adapters/{check_name(adapter, field='adapter')}"


def _alias_path(owner: Owner, adapter: str, alias: str) -> str:
    return f"{_adapter_path(owner, adapter)}/aliases/{check_name(alias, field='alias')}"


def _given(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}
