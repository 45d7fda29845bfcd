"""From an opaque version_id to verified files on this host's disk.

The registry is asked every time, so that what it no longer serves is not served from the disk either;
adapters that vLLM already holds do not come by here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from kit.errors import LorryError
from registry.client import RegistryClient, Resolution, Verifier, check_fits_base
from registry.client.engines import Presence
from registry.errors import (
    ArtifactError,
    BaseModelMismatch,
    EngineNotFound,
    Forbidden,
    RegistryUnavailable,
    Unauthorized,
)
from registry.manifest import WEIGHTS_FILE, BaseIdentity, Manifest
from serving.engine.installer import Installer
from serving.engine.metrics import EngineMetrics
from serving.engine.weights import check_weights
from serving.errors import AdapterDamaged, AdapterUnfit, EngineOutOfTouch, RegistryRefusedEngine

_REMEMBERED_REFUSALS = 4096


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What this engine can hold: its base model, the largest rank, the layers it wraps."""

    base: BaseIdentity
    base_directory: Path
    max_rank: int
    target_modules: frozenset[str]

    def require(self, manifest: Manifest) -> None:
        """Refuse an adapter that this engine would answer wrongly with, or could not load.

        Raises:
            BaseModelMismatch: when it was made for another base model.
            AdapterUnfit: when its rank or its layers are not served here.
        """
        if different := self.base.differences(manifest.base):
            raise BaseModelMismatch(
                f"The adapter was made for another base model than this engine serves: {', '.join(different)} differ."
            )
        if manifest.lora.rank > self.max_rank:
            raise AdapterUnfit(f"The adapter's rank is {manifest.lora.rank}; this engine serves up to {self.max_rank}.")
        foreign = sorted(set(manifest.lora.target_modules) - self.target_modules)
        if foreign:
            raise AdapterUnfit(f"The adapter touches layers that are not served: {', '.join(foreign)}.")

    def require_files(self, directory: Path) -> None:
        """Refuse what the manifest cannot tell: tensors of other sizes, values that would poison the engine.

        Raises:
            BaseModelMismatch: naming the first tensor that does not fit the base model.
            AdapterUnfit: naming the first tensor with values that no training gives.
        """
        check_fits_base(directory, self.base_directory)
        check_weights(directory / WEIGHTS_FILE)


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A version on this host's disk: where, and what its manifest says of it."""

    directory: Path
    manifest: Manifest

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file, in hexadecimal."""
        return {file.path: file.sha256 for file in self.manifest.files}

    @property
    def weights_bytes(self) -> int:
        """The size of the weights' file."""
        return next(file.size_bytes for file in self.manifest.files if file.path == WEIGHTS_FILE)


class AdapterSource:
    """Fetches versions for one engine, and refuses those it could not serve."""

    def __init__(
        self,
        registry: RegistryClient,
        *,
        installer: Installer,
        fit: Fit,
        metrics: EngineMetrics,
        refusal_ttl_seconds: float,
        verifier: Verifier | None = None,
        presence: Presence | None = None,
    ) -> None:
        """Prepare to fetch.

        Args:
            registry: who knows the versions.
            installer: where their files go.
            fit: what this engine can hold.
            metrics: what is measured.
            refusal_ttl_seconds: how long a refusal is remembered.
            verifier: whose signature every downloaded version must have; None = any, or none.
            presence: which engine asks for what only living engines get; None = an operator asks.
        """
        self._registry = registry
        self._installer = installer
        self._fit = fit
        self._metrics = metrics
        self._refusal_ttl_seconds = refusal_ttl_seconds
        self._verifier = verifier
        self._presence = presence
        self._refusals: OrderedDict[str, tuple[float, LorryError]] = OrderedDict()

    async def install(self, version_id: str) -> Installed:
        """Return where the version's verified files are.

        A refusal is remembered for `refusal_ttl_seconds`, so that a crowd that asks for what cannot be had
        costs one call of the registry.

        Raises:
            VersionNotFound, NotServable, BaseModelMismatch, AdapterUnfit, SignatureInvalid: this version is not for
                this engine.
            RegistryUnavailable, RegistryRefusedEngine, EngineOutOfTouch, AdapterDamaged, CacheFull, CacheBusy: it
                cannot be had now.
        """
        self._raise_remembered(version_id)
        try:
            with self._metrics.stage("resolve"):
                resolution = await self._resolve(version_id)
            installed = await self._installer.install(
                resolution.manifest, lambda directory: self._download(resolution, directory)
            )
            with self._metrics.stage("check"):
                await asyncio.to_thread(self._fit.require_files, installed)
            return Installed(directory=installed, manifest=resolution.manifest)
        except LorryError as exc:
            self.reject(version_id, exc)
            raise
        except OSError as exc:  # a disk that fails in a way nobody foresaw: counted, and not hidden
            self._metrics.failed(exc)
            raise

    def reject(self, version_id: str, error: LorryError) -> None:
        """Count a load that failed, answer it the same way for a while, and trust its files no longer."""
        self._metrics.failed(error)
        self._installer.distrust(version_id)
        self._refusals[version_id] = (monotonic() + self._refusal_ttl_seconds, error)
        self._refusals.move_to_end(version_id)
        while len(self._refusals) > _REMEMBERED_REFUSALS:
            self._refusals.popitem(last=False)

    async def _resolve(self, version_id: str) -> Resolution:
        try:
            resolution = await self._registry.get_version(version_id)
        except Unauthorized as exc:
            raise RegistryRefusedEngine from exc
        if resolution.manifest.version_id != version_id:
            raise AdapterDamaged("The registry answered with another version than the one asked for.")
        self._fit.require(resolution.manifest)
        return resolution

    async def _download(self, resolution: Resolution, directory: Path) -> None:
        try:
            grant = await self._registry.grant(resolution.manifest.version_id, engine=self._presence)
            if grant.manifest != resolution.manifest:
                raise AdapterDamaged("The registry granted another version than the one asked for.")
            if self._verifier is not None:
                self._verifier.verify(grant.signature, grant.manifest)
            await self._registry.download(grant, directory)
        except ArtifactError as exc:
            raise AdapterDamaged(exc.message, field=exc.field) from exc
        except EngineNotFound as exc:  # the registry counts this engine as gone, until its next heartbeat
            raise EngineOutOfTouch("The registry does not count this engine among the living yet.") from exc
        except Forbidden as exc:
            raise RegistryRefusedEngine from exc
        except (RegistryUnavailable, Unauthorized) as exc:
            raise RegistryUnavailable("The adapter's files could not be downloaded.") from exc

    def _raise_remembered(self, version_id: str) -> None:
        deadline, error = self._refusals.get(version_id, (0.0, None))
        if error is not None and monotonic() < deadline:
            raise error.with_traceback(None)  # or every raise would lengthen it


async def identify_base(directory: Path, *, name: str) -> BaseIdentity:
    """Digest the base model that this engine serves, without blocking the event loop.

    Raises:
        BaseModelUnreadable: naming the file that is missing.
    """
    return await asyncio.to_thread(BaseIdentity.of_directory, directory, id=name)
