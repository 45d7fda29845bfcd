"""The adapter that a training begins with, where it does not begin with nothing: one that the tenant's users share.

What people have in common when they write, the form of a chat above all, is learnt once, from text that nobody will
want erased; every user's adapter goes on from there, so that the few hundred replies there are of a person teach what
is theirs alone. To train for the task first and for the person after it is the order of OPPU (arXiv 2402.04401).
An adapter of a single user cannot be such a start: what it holds would outlive its user's erasure in all the others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kit.staging import staging
from registry.client import RegistryClient, Resolution
from registry.errors import AdapterNotFound, AliasNotFound, BaseModelNotFound, NotServable, VersionNotFound
from registry.manifest import AdapterRef, BaseIdentity, Manifest
from training.base_models import base_id
from training.config import ResolvedConfig, TrainingConfig
from training.errors import ConfigInvalid

_NOT_THERE = (AdapterNotFound, AliasNotFound, VersionNotFound, NotServable)


async def pin_start(config: ResolvedConfig, registry: RegistryClient, *, tenant: str) -> ResolvedConfig:
    """Return the configuration with its start named by version, which never changes, instead of by an alias.

    Raises:
        ConfigInvalid: naming `start`: there is no such version, it may not be served, or the training does not fit it.
        RegistryError: the registry cannot be asked.
    """
    training = config.training
    if training.start is None:
        return config
    ref = AdapterRef.parse(training.start, tenant=tenant)
    manifest = (await _resolve(registry, ref)).manifest
    _require_form(manifest, training)
    try:
        _require_base(manifest, await registry.show_base(base_id(training.base)))
    except BaseModelNotFound:
        pass  # nothing was published for it yet; the trainer knows what it has
    pinned = ref.model_copy(update={"selector": str(manifest.version)})
    return config.model_copy(update={"training": training.model_copy(update={"start": str(pinned)})})


@asynccontextmanager
async def borrowed_start(
    start: str | None, registry: RegistryClient, *, tenant: str, base: BaseIdentity, beside: Path
) -> AsyncIterator[Path | None]:
    """Have the files of a pinned start in a folder of `beside`, called by the version's id, while the block runs.

    Raises:
        ConfigInvalid: naming `start`: it is gone, may not be served, or was trained for another base.
        RegistryError: the registry cannot be asked, or what arrives is damaged.
    """
    if start is None:
        yield None
        return
    resolution = await _resolve(registry, AdapterRef.parse(start, tenant=tenant))
    _require_base(resolution.manifest, base)
    beside.mkdir(parents=True, exist_ok=True)
    with staging(beside, prefix=".start-") as folder:
        target = folder / resolution.manifest.version_id
        await registry.download(resolution, target)
        yield target


async def _resolve(registry: RegistryClient, ref: AdapterRef) -> Resolution:
    try:
        return await registry.resolve(ref)
    except _NOT_THERE as exc:
        raise ConfigInvalid(f"start: {exc.message}", field="start") from exc


def _require_form(manifest: Manifest, training: TrainingConfig) -> None:
    theirs, ours = (manifest.lora.rank, manifest.lora.alpha), (training.rank, training.alpha)
    if theirs != ours:
        raise ConfigInvalid(
            f"start: that adapter has rank {theirs[0]} and alpha {theirs[1]:g}, the training asks for {ours[0]} and"
            f" {ours[1]:g}: set them alike",
            field="start",
        )


def _require_base(manifest: Manifest, base: BaseIdentity) -> None:
    if manifest.base.weights_sha256 != base.weights_sha256:
        raise ConfigInvalid(f"start: that adapter was trained for {manifest.base.id}, not for {base.id}", field="start")
