"""From an opaque version_id to an opened, verified adapter in memory, in one pass over its bytes.

The order was chosen for the request that waits. One call of the registry brings manifest, key and URL. Then one thread
reads the sealed object, from the object store or from this host's disk, and does with each chunk, while it is in the
processor's cache, all that has to be done with it: keep the sealed bytes on the disk, and open the seal right into
memory that the workers will read, where another thread digests it. The object store sends the next chunks meanwhile.
Only when every digest was right is the memory frozen and handed on, and the file on the disk shown under its name; so
nothing is read, opened or digested twice, and nothing that was not verified is ever parsed.

Plain bytes and content keys are in memory only. A key is remembered while its version lies on this disk, and no longer,
so that it costs no call; whether it may be served is the directory's to say, for it as for those in memory. After a
restart, the key is asked for anew: what the registry no longer serves cannot be opened.

Downloads have threads of their own: an object store that hangs keeps those busy, and what lies on the disk is opened
all the same. A store that sends, but next to nothing, counts as one that hangs. What nobody wants any more stops at its
next chunk, and counts as under way until then: nothing plain of it is left anywhere once it has ended.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, closing
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from kit.errors import LorryError
from kit.sealing import Fill
from registry.client import Grant, ObjectReader, RegistryClient, Verifier, fill_from, open_version
from registry.client.engines import Presence
from registry.client.transport import patiently
from registry.errors import (
    ArtifactError,
    ArtifactMissing,
    BaseModelMismatch,
    EngineNotFound,
    Forbidden,
    RegistryUnavailable,
    Unauthorized,
)
from registry.manifest import WEIGHTS_FILE, BaseIdentity, Manifest
from serving.engine.installer import Installer, Shelf, open_for_writing
from serving.engine.machine import is_damage, refusals_of_the_machine
from serving.engine.metrics import EngineMetrics
from serving.engine.next_memory import NextMemory
from serving.engine.opened import OpenedAdapter
from serving.engine.turns import Turns
from serving.engine.urgency import Urgency
from serving.errors import (
    AdapterDamaged,
    AdapterUnfit,
    CacheBusy,
    CacheFull,
    EngineOutOfTouch,
    MachineRefused,
    ObjectStoreUnavailable,
    RegistryRefusedEngine,
)

_log = logging.getLogger(__name__)
_REMEMBERED_REFUSALS = 4096
_THREADS = 4
_URL_SECONDS = 30.0  # far less than any registry lets a URL live
_SLOWEST_BYTES_PER_SECOND = 256 << 10
_QUIET_SECONDS = 0.25  # by then whoever waited for the last adapter has most likely been served
_OURS = (CacheBusy, CacheFull, MachineRefused)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What this engine can hold: its base model, the largest rank, the layers it wraps."""

    base: BaseIdentity
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


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What it takes to have a version: what it is, and the key that opens it."""

    manifest: Manifest
    sealed_bytes: int
    content_key: bytes = field(repr=False)
    url: str | None = field(default=None, repr=False)
    granted_at: float = 0.0

    @property
    def version_id(self) -> str:
        """The version's name."""
        return self.manifest.version_id

    @property
    def weights_bytes(self) -> int:
        """The size of the weights' file."""
        return next(file.size_bytes for file in self.manifest.files if file.path == WEIGHTS_FILE)

    @property
    def fresh_url(self) -> str | None:
        """Where the sealed object is; None when that was said too long ago."""
        return self.url if monotonic() - self.granted_at < _URL_SECONDS else None


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
        silence_seconds: float = 10.0,
        verifier: Verifier | None = None,
        presence: Presence | None = None,
    ) -> None:
        """Prepare to fetch.

        Args:
            registry: who knows the versions.
            installer: where their sealed files go.
            fit: what this engine can hold.
            metrics: what is measured.
            refusal_ttl_seconds: how long a refusal is remembered.
            silence_seconds: how long the object store may be silent before it is asked again.
            verifier: whose signature every version must have; None = any, or none.
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
        self._offers: dict[str, Offer] = {}  # of what lies on the disk, and of nothing else
        self._silence_seconds = silence_seconds
        self._objects = ObjectReader(timeout_seconds=silence_seconds)
        self._downloads, self._openings = _Lane("lorry-fetch"), _Lane("lorry-open")
        self._memory = NextMemory()
        self._readying: asyncio.TimerHandle | None = None
        installer.on_gone(self.forget)

    def at_hand(self, version_id: str) -> bool:
        """Say whether neither registry nor object store is needed: for the version, or for what refuses it."""
        if self._remembered(version_id) is not None:
            return True
        return version_id in self._offers and self._installer.has(version_id)

    async def find(self, version_id: str) -> Offer:
        """Return what it takes to have a version, asking the registry when its key is not known.

        A refusal is remembered for `refusal_ttl_seconds`, so that a crowd that asks for what cannot be had
        costs one call of the registry.

        Raises:
            VersionNotFound, NotServable, BaseModelMismatch, AdapterUnfit, SignatureInvalid: this version is not for
                this engine.
            RegistryUnavailable, RegistryRefusedEngine, EngineOutOfTouch: it cannot be had now.
        """
        if (refusal := self._remembered(version_id)) is not None:
            raise copy(refusal)
        if (known := self._offers.get(version_id)) is not None:
            return known
        try:
            return await self._ask(version_id)
        except LorryError as exc:
            self.reject(version_id, exc)
            raise

    async def open(self, offer: Offer, *, urgent: Urgency) -> OpenedAdapter:
        """Return the version's verified files in memory, from this host's disk or else from the object store.

        What is damaged on the disk is deleted and downloaded once; what is downloaded damaged is refused.

        Args:
            offer: what `find` returned.
            urgent: whether it goes before those that are not.

        Raises:
            AdapterDamaged, ObjectStoreUnavailable, CacheFull, CacheBusy, MachineRefused: it cannot be had now; or the
                registry's refusal when it had to be asked again.
        """
        try:
            with refusals_of_the_machine():
                async with self._installer.shelf(offer.version_id) as shelf:
                    opened = await self._open_from_disk(offer, shelf, urgent=urgent)
                    opened = opened or await self._download(offer, shelf, urgent=urgent)
                    self._offers[offer.version_id] = offer
                    return opened
        except LorryError as exc:
            self.reject(offer.version_id, exc)
            raise
        finally:
            self._make_ready_soon()

    def reject(self, version_id: str, error: LorryError) -> None:
        """Count a load that failed, answer it the same way for a while, and ask the registry anew after that.

        When it was this machine's fault, the key is kept: the registry would only say the same again.

        A copy is kept: the error that was raised holds on to the frames that it passed, and they to people's requests.
        """
        self._metrics.failed(error)
        if not isinstance(error, _OURS):
            self.forget(version_id)
        now = monotonic()
        self._refusals[version_id] = (now + self._refusal_ttl_seconds, copy(error))
        self._refusals.move_to_end(version_id)
        while self._refusals:
            deadline, _ = next(iter(self._refusals.values()))
            if now < deadline and len(self._refusals) <= _REMEMBERED_REFUSALS:
                break
            self._refusals.popitem(last=False)

    def forget(self, version_id: str) -> None:
        """Forget the key of a version."""
        self._offers.pop(version_id, None)

    def directory_of(self, version_id: str) -> Path:
        """Return where a version's sealed file is, or would be."""
        return self._installer.directory / version_id

    async def _ask(self, version_id: str) -> Offer:
        with self._metrics.stage("resolve"):
            grant = await self._grant(version_id)
        if grant.manifest.version_id != version_id:
            raise AdapterDamaged("The registry answered with another version than the one asked for.")
        self._fit.require(grant.manifest)
        if self._verifier is not None:
            self._verifier.verify(grant.signature, grant.manifest)
        offer = Offer(
            manifest=grant.manifest,
            sealed_bytes=grant.sealed_bytes,
            content_key=grant.content_key,
            url=grant.url,
            granted_at=monotonic(),
        )
        return offer

    async def _grant(self, version_id: str) -> Grant:
        try:
            return await self._registry.grant(version_id, engine=self._presence, within_seconds=self._silence_seconds)
        except EngineNotFound as exc:  # the registry counts this engine as gone, until its next heartbeat
            raise EngineOutOfTouch("The registry does not count this engine among the living yet.") from exc
        except (Unauthorized, Forbidden) as exc:
            raise RegistryRefusedEngine from exc

    async def _open_from_disk(self, offer: Offer, shelf: Shelf, *, urgent: Urgency) -> OpenedAdapter | None:
        path = await shelf.find(offer.sealed_bytes)
        if path is None:
            return None
        try:
            with self._metrics.stage("open"):
                async with self._openings.turn(urgent=urgent):
                    return await self._openings.run(lambda given_up: self._open_file(path, offer, given_up))
        except (ArtifactError, OSError) as exc:
            if isinstance(exc, OSError) and not is_damage(exc):
                raise
            reason = exc.message if isinstance(exc, LorryError) else str(exc.strerror)
            _log.warning("%s was damaged on the disk and is downloaded again: %s", offer.version_id, reason)
            await shelf.discard()
            return None

    async def _download(self, offer: Offer, shelf: Shelf, *, urgent: Urgency) -> OpenedAdapter:
        """Download in turn: who waits for one holds no room on the disk, and its URL is not old when it comes."""
        async with self._downloads.turn(urgent=urgent):
            url = offer.fresh_url or (await self._ask_again(offer)).url
            assert url is not None
            return await self._download_from(url, offer, shelf)

    async def _download_from(self, url: str, offer: Offer, shelf: Shelf) -> OpenedAdapter:
        async with shelf.arrival(offer.sealed_bytes) as path:
            try:
                with self._metrics.stage("download"):
                    return await patiently(
                        lambda: self._downloads.run(lambda given_up: self._fetch(url, offer, path, given_up))
                    )
            except ArtifactMissing as exc:
                raise AdapterDamaged(exc.message, field=exc.field) from exc
            except ArtifactError as exc:
                message = f"what the object store sent cannot be used: {exc.message}"
                raise AdapterDamaged(message, field=exc.field) from exc
            except RegistryUnavailable as exc:
                raise ObjectStoreUnavailable from exc

    async def _ask_again(self, offer: Offer) -> Offer:
        again = await self._ask(offer.version_id)
        if again.manifest != offer.manifest:
            raise AdapterDamaged("The registry granted another version than the one asked for.")
        return again

    def _fetch(self, url: str, offer: Offer, path: Path, given_up: threading.Event) -> OpenedAdapter:
        within_seconds = self._silence_seconds + offer.sealed_bytes / _SLOWEST_BYTES_PER_SECOND
        with (
            self._objects.read(url, within_seconds=within_seconds) as fill,
            closing(open_for_writing(path)) as file,
        ):

            def keep(view: memoryview) -> int:
                count = fill(view)
                rest = view[:count]
                while rest:
                    rest = rest[file.write(rest) :]
                return count

            return self._open(_until(given_up, keep), offer)

    def _open_file(self, path: Path, offer: Offer, given_up: threading.Event) -> OpenedAdapter:
        with path.open("rb", buffering=0) as file:
            return self._open(_until(given_up, fill_from(file.readinto)), offer)

    def _open(self, fill: Fill, offer: Offer) -> OpenedAdapter:
        """Open, verify and freeze; what fails leaves nothing."""
        sizes = tuple((file.path, file.size_bytes) for file in offer.manifest.files)
        opened = self._memory.take(sum(size_bytes for _, size_bytes in sizes))
        try:
            open_version(fill, offer.manifest, key=offer.content_key, into=opened.plain)
            opened.freeze(sizes)
        except BaseException:
            opened.close()
            raise
        return opened

    def _make_ready_soon(self) -> None:
        """In the next quiet moment, get memory for the adapter after this one."""
        if self._readying is not None:
            self._readying.cancel()
        loop = asyncio.get_running_loop()
        self._readying = loop.call_later(_QUIET_SECONDS, lambda: loop.run_in_executor(None, self._memory.make_ready))

    def _remembered(self, version_id: str) -> LorryError | None:
        """Return the refusal that still holds."""
        deadline, error = self._refusals.get(version_id, (0.0, None))
        return error if monotonic() < deadline else None


class _Lane:
    """A few threads for one kind of work, urgent work first."""

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=name)
        self._turns = Turns(_THREADS)

    def turn(self, *, urgent: Urgency) -> AbstractAsyncContextManager[None]:
        """Wait for a thread and keep it while the block runs."""
        return self._turns.turn(urgent=urgent)

    async def run(self, work: Callable[[threading.Event], OpenedAdapter]) -> OpenedAdapter:
        """Do `work` in a thread; to be called within `turn`.

        Who is cancelled lets the work know by its event, and stays until it has ended.
        """
        given_up = threading.Event()
        working = asyncio.get_running_loop().run_in_executor(self._threads, work, given_up)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            given_up.set()
            working.add_done_callback(_close)
            await asyncio.wait([working])
            raise


class _GivenUp(Exception):
    """Nobody wants it any more; heard by nobody."""


def _until(given_up: threading.Event, fill: Fill) -> Fill:
    def fill_unless(view: memoryview) -> int:
        if given_up.is_set():
            raise _GivenUp
        return fill(view)

    return fill_unless


def _close(working: asyncio.Future[OpenedAdapter]) -> None:
    if not working.cancelled() and working.exception() is None:
        working.result().close()


async def identify_base(directory: Path, *, name: str) -> BaseIdentity:
    """Digest the base model that this engine serves, without blocking the event loop.

    Raises:
        BaseModelUnreadable: naming the file that is missing.
    """
    return await asyncio.to_thread(BaseIdentity.of_directory, directory, id=name)
