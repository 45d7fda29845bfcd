"""Claiming a number for a content: what a draft must be before anything is uploaded."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kit.canonical import sha256_bytes
from registry.artifact.validation import Limits, check_declaration, check_draft
from registry.errors import (
    BaseModelIncomplete,
    BaseModelMismatch,
    BaseModelNotFound,
    DigestMismatch,
    InvalidReference,
    LimitReached,
    RegistryUnavailable,
    SignatureInvalid,
    VersionConflict,
)
from registry.lifecycle.policy import TenantPolicy
from registry.manifest import CONFIG_FILE, BaseIdentity, Declaration, Draft, Manifest, RegisteredBase
from registry.models import VersionRow
from registry.publishing.repository import PublishingRepository, Standing

_LARGEST_STEP = 1_000_000  # how far above the largest number in use a draft may insist on one: they must not run out
# Each time round, one of the racing publishers wins a number; so this many may race for one adapter.
_ATTEMPTS = 64


def require_sound(draft: Draft, *, limits: Limits) -> bytes:
    """Refuse what no upload could make valid; return the canonical configuration.

    Raises:
        AdapterInvalid: naming the field, and with every finding in its details.
        DigestMismatch: when the declared configuration is not the one in the draft.
    """
    config = check_draft(draft, limits=limits)
    declared = next(file for file in draft.files if file.path == CONFIG_FILE)
    if (declared.size_bytes, declared.sha256) != (len(config), sha256_bytes(config)):
        raise DigestMismatch(
            f"{CONFIG_FILE} is declared with other bytes than its canonical form has:"
            f" {len(config)} bytes, SHA-256 {sha256_bytes(config)}",
            field=CONFIG_FILE,
        )
    return config


def require_base(known: RegisteredBase | None, declared: BaseIdentity) -> BaseIdentity:
    """Return the base as it is registered.

    Raises:
        BaseModelNotFound: when it is not registered.
        BaseModelMismatch: when it is registered with other digests.
        BaseModelIncomplete: when nothing can be compared with it.
    """
    if known is None:
        raise BaseModelNotFound(f"base model {declared.id!r} is not registered; register it first", field="base.id")
    if different := known.differences(declared):
        raise BaseModelMismatch(
            f"the adapter was made for another {known.id!r}: {', '.join(different)} differ",
            field=f"base.{different[0]}",
        )
    if known.shape is None:
        raise BaseModelIncomplete(
            f"base model {known.id!r} was registered without its config.json; register it again with it",
            field="base.id",
        )
    return known.identity


def require_policy(
    stored: dict[str, Any] | None, declared: Declaration, *, limits: Limits, signs: bool
) -> TenantPolicy:
    """Refuse what the tenant's policy does not let it publish.

    Raises:
        AdapterInvalid: for a rank or a size above the tenant's limit.
        SignatureInvalid: when it wants signatures and this registry makes none.
    """
    policy = TenantPolicy.of(stored)
    narrower = Limits(
        max_adapter_bytes=min(limits.max_adapter_bytes, policy.max_adapter_bytes or limits.max_adapter_bytes),
        max_rank=min(limits.max_rank, policy.max_rank or limits.max_rank),
    )
    if narrower != limits:
        check_declaration(declared, limits=narrower)
    if policy.require_signature and not signs:
        raise SignatureInvalid(
            "the tenant's policy wants signed versions, and this registry has no signing key", field="signature"
        )
    return policy


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One publisher's claim: what is to become a version, and under which rules."""

    draft: Draft
    config: bytes
    policy: TenantPolicy
    data_key_id: str
    actor: str

    async def ensure_adapter(self, repository: PublishingRepository) -> int:
        """Return the adapter's number, adding the adapter if the policy allows one more.

        Raises:
            LimitReached: when it does not.
        """
        owner, adapter, most = self.draft.owner, self.draft.adapter, self.policy.max_adapters
        if most is not None and await repository.get_adapter(owner, adapter) is None:
            found = await repository.count_adapters(owner.tenant, at_most=most)
            if found >= most and await repository.get_adapter(owner, adapter) is None:
                raise LimitReached(f"the tenant has {most} adapters, its limit", field="adapter")
        return await repository.add_adapter(owner, adapter) or await repository.ensure_adapter(owner, adapter)

    async def make(self, repository: PublishingRepository, standing: Standing) -> VersionRow | Manifest:
        """Do `find_or_add`, with what is known already: nearly always the content is new, and nobody else publishes.

        Nobody may destroy the owner's key before the transaction ends.

        Raises:
            VersionConflict, InvalidReference, LimitReached: as for `find_or_add`.
        """
        adapter_id = standing.adapter_id or await self.ensure_adapter(repository)
        if self.draft.version is None and self.policy.max_versions_per_adapter is None:
            added = await self.add(repository, adapter_id, number=standing.number, now=standing.now)
            if added is not None:
                return added
        return await self.find_or_add(repository, adapter_id)

    async def add(
        self, repository: PublishingRepository, adapter_id: int, *, number: int, now: datetime
    ) -> Manifest | None:
        """Add a version of this number; None when the number or the content was taken meanwhile.

        Raises:
            LimitReached: when the adapter has as many versions as the policy allows.
        """
        await self._require_room(repository, adapter_id)
        declared = self.draft.model_dump(exclude={"version", "config"})
        manifest = Manifest.model_validate(
            {
                **declared,
                "version_id": f"v{uuid.uuid4().hex}",
                "version": self.draft.version or number,
                "created_at": now.astimezone(UTC),
            }
        )
        added = await repository.add_version(
            adapter_id,
            manifest,
            data_key_id=self.data_key_id,
            pending={"config": json.loads(self.config)},
            actor=self.actor,
        )
        return manifest if added else None

    async def find_or_add(self, repository: PublishingRepository, adapter_id: int) -> VersionRow | Manifest:
        """Return the version that has this content, or the manifest of the one that was added for it.

        Raises:
            VersionConflict: when the draft insists on a number that has other content.
            InvalidReference: when it insists on a number far above the largest in use.
            LimitReached: when the adapter has as many versions as the policy allows.
        """
        for _ in range(_ATTEMPTS):
            known = await repository.find_content(adapter_id, self.draft.content_digest)
            if known is not None:
                if self.draft.version not in (None, known.number):
                    raise VersionConflict(f"this content is version {known.number} already", field="version")
                return known
            wanted = self.draft.version
            if wanted is not None and await repository.get_numbered(adapter_id, wanted):
                raise VersionConflict(f"version {wanted} exists with different content", field="version")
            number, now = await repository.next_number(adapter_id)
            if wanted is not None and wanted >= number + _LARGEST_STEP:
                raise InvalidReference(
                    f"version {wanted} is more than {_LARGEST_STEP:,} above the adapter's largest number",
                    field="version",
                )
            added = await self.add(repository, adapter_id, number=number, now=now)
            if added is not None:
                return added
        raise RegistryUnavailable("too many publishers at once for one adapter; try again")

    async def _require_room(self, repository: PublishingRepository, adapter_id: int) -> None:
        most = self.policy.max_versions_per_adapter
        if most is not None and await repository.count_room(adapter_id) >= most:
            raise LimitReached(f"the adapter has {most} versions, the tenant's limit; retire one", field="adapter")
