"""Master keys: what data keys are wrapped under. In a key file, or in AWS KMS.

A wrapped data key says by which master key it was wrapped, so that several may be in use while keys are rotated. The
context is authenticated: a wrapped key that is moved to another place does not open there. It is no secret: KMS
writes it to its audit trail.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock

from kit.canonical import canonical_json
from kit.errors import MasterKeyInvalid, MasterKeyMissing
from kit.sealing import KEY_BYTES, new_key, seal, unseal
from kit.settings import MasterKeySettings

if TYPE_CHECKING:
    from kit.kms import Kms

_LOCK_SECONDS = 10
_FILE = "file:"
_KMS = "kms:"
_SETUP = "set LORRY_MASTER_KEY_FILE or LORRY_KMS_KEY_ID; `lorry keys init` makes a key file"


class MasterKeys(Protocol):
    """The keys that wrap data keys."""

    async def primary_id(self) -> str:
        """Return the id of the master key that wraps from now on.

        Raises:
            MasterKeyUnavailable: when the service that keeps the key does not answer.
        """

    def holds(self, master_key_id: str) -> bool:
        """Say whether this process has that master key, or may ask the service that keeps it."""

    async def wrap(self, data_key: bytes, context: Mapping[str, str]) -> tuple[str, bytes]:
        """Return the primary master key's id, and the data key wrapped under it.

        Raises:
            MasterKeyUnavailable: when the service that keeps the key does not answer.
        """

    async def unwrap(self, master_key_id: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Return the data key.

        Raises:
            SealBroken: when it was not wrapped under that master key and context.
            MasterKeyMissing: when this process does not have that master key.
            MasterKeyUnavailable: when the service that keeps the key does not answer.
        """


def open_master_keys(settings: MasterKeySettings) -> MasterKeys:
    """Return the master keys that the settings name.

    Raises:
        MasterKeyInvalid: when they name none, or the key file cannot be used.
    """
    file = KeyFile(settings.master_key_file) if settings.master_key_file else None
    if settings.kms_key_id:
        from kit.kms import Kms  # boto3 is slow to import, and a key file needs none of it

        kms = KmsKey(Kms(settings), settings.kms_key_id)
        return _Both(kms, file) if file else kms
    if file is None:
        raise MasterKeyInvalid(f"there is no master key: {_SETUP}", field="LORRY_MASTER_KEY_FILE")
    return file


@dataclass(frozen=True, kw_only=True)
class KeyRing:
    """What a key file holds: 32-byte keys by id, one of which wraps from now on.

    `next` waits until every host has it, and becomes the primary one by the next rotation.
    """

    primary: str
    keys: Mapping[str, bytes]
    next: str | None = None

    def __repr__(self) -> str:
        return f"KeyRing(primary={self.primary!r}, keys={sorted(self.keys)}, next={self.next!r})"


class KeyFile:
    """A keyring in a JSON file that only its owner may read, who is this process's account or root.

    Where the path is a link, the file behind it is read, locked and replaced. The file is looked at before every use
    and read again when it was replaced, so that a running process learns of keys that `lorry keys` adds.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            MasterKeyInvalid: when it is missing, readable by others, or no keyring.
        """
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._ring = KeyRing(primary="", keys={})
        self.ring()

    @classmethod
    def create(cls, path: Path) -> KeyFile:
        """Make a file with one new key unless the file exists; of several makers at once one wins."""
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            key_id = _new_id()
            try:
                _write(path.resolve(), KeyRing(primary=key_id, keys={key_id: new_key()}), replace=False)
            except FileExistsError:
                pass  # another process was faster, and its key counts
        return cls(path)

    async def primary_id(self) -> str:
        """Return the id of the key that wraps from now on."""
        return self.ring().primary

    def ring(self) -> KeyRing:
        """Return what the file holds now.

        Raises:
            MasterKeyInvalid: when it is missing, readable by others, or no keyring.
        """
        try:
            found = self._path.stat()
        except OSError as exc:
            raise self._invalid(f"cannot be read: {exc.strerror}; {_SETUP}") from exc
        seen = (found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode)
        if seen != self._seen:
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise self._invalid("is readable by other accounts; chmod 600 it")
            if found.st_uid not in {0, os.geteuid()}:  # root may put it there, as Kubernetes does
                raise self._invalid("belongs to another account, which could put other keys into it; chown it")
            self._ring = self._read()
            self._seen = seen
        return self._ring

    def add_next(self) -> str:
        """Add a new key that opens but does not wrap yet, unless one waits already; return its id."""
        with self._changing() as path:
            ring = self.ring()
            if ring.next is not None:
                return ring.next
            key_id = _new_id()
            keys = {**ring.keys, key_id: new_key()}
            _write(path, KeyRing(primary=ring.primary, keys=keys, next=key_id), replace=True)
        return key_id

    def add_primary(self) -> str:
        """Let the key that waits wrap from now on, or a new one when none waits; return its id."""
        with self._changing() as path:
            ring = self.ring()
            key_id = ring.next or _new_id()
            keys = {key_id: new_key(), **ring.keys}
            _write(path, KeyRing(primary=key_id, keys=keys), replace=True)
        return key_id

    def forget(self, key_id: str) -> None:
        """Remove a key for good: what is still wrapped under it, in whatever copy, cannot be opened any more.

        Raises:
            MasterKeyMissing: when the file has no such key.
            MasterKeyInvalid: when it is the primary one.
        """
        with self._changing() as path:
            ring = self.ring()
            if key_id not in ring.keys:
                raise MasterKeyMissing(f"there is no master key {key_id} in {self._path}", field="key_id")
            if key_id == ring.primary:
                raise MasterKeyInvalid(f"{key_id} is the primary master key; rotate first", field="key_id")
            keys = {each: key for each, key in ring.keys.items() if each != key_id}
            waiting = ring.next if ring.next in keys else None
            _write(path, KeyRing(primary=ring.primary, keys=keys, next=waiting), replace=True)

    @contextmanager
    def _changing(self) -> Iterator[Path]:
        """Let one process at a time read, change and write the file that it is given."""
        path = self._path.resolve()
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_SECONDS):
            yield path

    def holds(self, master_key_id: str) -> bool:
        """Say whether the file has that key."""
        return master_key_id in self.ring().keys

    async def wrap(self, data_key: bytes, context: Mapping[str, str]) -> tuple[str, bytes]:
        """Wrap under the primary key."""
        ring = self.ring()
        return ring.primary, seal(ring.keys[ring.primary], data_key, context=_bound(ring.primary, context))

    async def unwrap(self, master_key_id: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Unwrap under any key of the file."""
        key = self.ring().keys.get(master_key_id)
        if key is None:
            raise MasterKeyMissing(f"the key file has no master key {master_key_id}")
        return unseal(key, wrapped, context=_bound(master_key_id, context))

    def _read(self) -> KeyRing:
        try:
            found = json.loads(self._path.read_text())
            keys = {key_id: base64.b64decode(key, validate=True) for key_id, key in found["keys"].items()}
            is_held = found["primary"] in keys and found.get("next", found["primary"]) in keys
        except OSError as exc:
            raise self._invalid(f"cannot be read: {exc.strerror}") from exc
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            raise self._invalid('is no keyring; expected {"primary": id, "keys": {id: base64}}') from None  # no secrets
        if not is_held:
            raise self._invalid("names a primary key, or one that is to be, that it does not hold")
        if any(len(key) != KEY_BYTES for key in keys.values()):
            raise self._invalid(f"holds a key that has not {KEY_BYTES} bytes")
        if any(not key_id.startswith(_FILE) for key_id in keys):
            raise self._invalid(f"holds a key whose id does not begin with {_FILE!r}")
        return KeyRing(primary=found["primary"], keys=keys, next=found.get("next"))

    def _invalid(self, why: str) -> MasterKeyInvalid:
        return MasterKeyInvalid(f"the master key file {self._path} {why}", field="LORRY_MASTER_KEY_FILE")


class KmsKey:
    """One key in AWS KMS; the key itself never leaves it."""

    def __init__(self, kms: Kms, key_id: str) -> None:
        self._kms = kms
        self._key_id = key_id

    async def primary_id(self) -> str:
        """Return the ARN behind the key's name, as KMS tells it now: an alias may have moved."""
        return (await self.wrap(b"probe", {"purpose": "which key"}))[0]

    def holds(self, master_key_id: str) -> bool:
        """Say whether it is a key of KMS; whether KMS lets us use it, only asking tells."""
        return master_key_id.startswith(_KMS)

    async def wrap(self, data_key: bytes, context: Mapping[str, str]) -> tuple[str, bytes]:
        """Wrap in KMS."""
        arn, wrapped = await self._kms.encrypt(self._key_id, data_key, context)
        return _KMS + arn, wrapped

    async def unwrap(self, master_key_id: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Unwrap in KMS, under whichever key of it."""
        if not master_key_id.startswith(_KMS):
            raise MasterKeyMissing(f"the master key {master_key_id} is not one of KMS; set LORRY_MASTER_KEY_FILE")
        return await self._kms.decrypt(master_key_id.removeprefix(_KMS), wrapped, context)


class _Both:
    """KMS wraps; the file opens what it wrapped before."""

    def __init__(self, kms: KmsKey, file: KeyFile) -> None:
        self._kms = kms
        self._file = file

    async def primary_id(self) -> str:
        return await self._kms.primary_id()

    def holds(self, master_key_id: str) -> bool:
        return self._kms.holds(master_key_id) or self._file.holds(master_key_id)

    async def wrap(self, data_key: bytes, context: Mapping[str, str]) -> tuple[str, bytes]:
        return await self._kms.wrap(data_key, context)

    async def unwrap(self, master_key_id: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        keys: MasterKeys = self._file if master_key_id.startswith(_FILE) else self._kms
        return await keys.unwrap(master_key_id, wrapped, context)


def _bound(master_key_id: str, context: Mapping[str, str]) -> bytes:
    return b"lorry data key\0" + canonical_json({"master_key": master_key_id, **context})


def _new_id() -> str:
    return f"{_FILE}{uuid.uuid4().hex[:16]}"


def _write(path: Path, ring: KeyRing, *, replace: bool) -> None:
    """Make the whole file visible at once, readable by its owner alone; it survives a power cut."""
    keys = {key_id: base64.b64encode(key).decode() for key_id, key in ring.keys.items()}
    waiting = {"next": ring.next} if ring.next else {}
    text = json.dumps({"primary": ring.primary, **waiting, "keys": keys})
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
