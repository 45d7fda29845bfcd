"""Claiming a number for a content: what a draft must be before anything is uploaded."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from kit.canonical import sha256_bytes
from registry.artifact.validation import Limits, check_declaration, check_draft
from registry.errors import (
    BaseModelIncomplete,
    BaseModelMismatch,
    BaseModelNotFound,
    DigestMismatch,
    LimitReached,
    RegistryUnavailable,
    SignatureInvalid,
    VersionConflict,
)
from registry.lifecycle.policy import TenantPolicy
from registry.manifest import CONFIG_FILE, BaseIdentity, Draft, Manifest, Owner
from registry.models import VersionRow
from registry.publishing.repository import PublishingRepository

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


async def require_base(repository: PublishingRepository, declared: BaseIdentity) -> BaseIdentity:
    """Return the base as it is registered.

    Raises:
        BaseModelNotFound: when it is not registered.
        BaseModelMismatch: when it is registered with other digests.
        BaseModelIncomplete: when nothing can be compared with it.
    """
    known = await repository.get_base(declared.id)
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


async def require_policy(
    repository: PublishingRepository, draft: Draft, *, limits: Limits, signs: bool
) -> TenantPolicy:
    """Refuse what the tenant's policy does not let it publish.

    Raises:
        AdapterInvalid: for a rank or a size above the tenant's limit.
        SignatureInvalid: when it wants signatures and this registry makes none.
    """
    policy = TenantPolicy.of(await repository.get_policy(draft.owner.tenant))
    narrower = Limits(
        max_adapter_bytes=min(limits.max_adapter_bytes, policy.max_adapter_bytes or limits.max_adapter_bytes),
        max_rank=min(limits.max_rank, policy.max_rank or limits.max_rank),
    )
    if narrower != limits:
        check_declaration(draft, limits=narrower)
    if policy.require_signature and not signs:
        raise SignatureInvalid(
            "the tenant's policy wants signed versions, and this registry has no signing key", field="signature"
        )
    return policy


async def ensure_adapter(repository: PublishingRepository, owner: Owner, adapter: str, *, policy: TenantPolicy) -> int:
    """Return the adapter's number, adding the adapter if the policy allows one more.

    Raises:
        LimitReached: when it does not.
    """
    known = await repository.get_adapter(owner, adapter)
    if known is not None:
        return known
    if policy.max_adapters is not None:
        found = await repository.count_adapters(owner.tenant, at_most=policy.max_adapters)
        if found >= policy.max_adapters and await repository.get_adapter(owner, adapter) is None:
            raise LimitReached(f"the tenant has {policy.max_adapters} adapters, its limit", field="adapter")
    return await repository.ensure_adapter(owner, adapter)


async def claim(
    repository: PublishingRepository,
    adapter_id: int,
    draft: Draft,
    *,
    config: bytes,
    policy: TenantPolicy,
    data_key_id: str,
    actor: str,
) -> tuple[VersionRow, bool]:
    """Return the version that has this content, and whether it was added because nobody else had it first.

    Raises:
        VersionConflict: when the draft insists on a number that has other content.
        LimitReached: when the adapter has as many versions as the policy allows.
    """
    for _ in range(_ATTEMPTS):
        known = await repository.find_content(adapter_id, draft.content_digest)
        if known is not None:
            if draft.version not in (None, known.number):
                raise VersionConflict(f"this content is version {known.number} already", field="version")
            return known, False
        if draft.version is not None and await repository.get_numbered(adapter_id, draft.version):
            raise VersionConflict(f"version {draft.version} exists with different content", field="version")
        await _require_room(repository, adapter_id, policy)
        number, now = await repository.next_number(adapter_id)
        manifest = _manifest(draft, number=draft.version or number, now=now)
        pending: dict[str, Any] = {"config": json.loads(config)}
        added = await repository.add_version(adapter_id, manifest, data_key_id=data_key_id, pending=pending)
        if added is not None:
            repository.record(actor, "begin", adapter_id=adapter_id, version_id=added.version_id)
            return added, True
    raise RegistryUnavailable("too many publishers at once for one adapter; try again")


async def _require_room(repository: PublishingRepository, adapter_id: int, policy: TenantPolicy) -> None:
    if policy.max_versions_per_adapter is None:
        return
    found = await repository.count_room(adapter_id)
    if found >= policy.max_versions_per_adapter:
        raise LimitReached(f"the adapter has {found} versions, the tenant's limit; retire one", field="adapter")


def _manifest(draft: Draft, *, number: int, now: datetime) -> Manifest:
    declared = draft.model_dump(exclude={"version", "config"})
    return Manifest.model_validate(
        {**declared, "version_id": f"v{uuid.uuid4().hex}", "version": number, "created_at": now.astimezone(UTC)}
    )
