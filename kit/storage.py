"""The object store: S3, with no call that blocks an event loop.

Transfers carry SHA-256 checksums, so that bytes damaged on the way are refused. What fails for no fault of the caller
is tried again, and a read that breaks off goes on from where it was. Large objects are written in parts, by
`ObjectStorage.multipart`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from kit.aws import read_body
from kit.bucket import (
    SSE_HEADERS,
    Bucket,
    checksum_of_digest,
    digest_of_checksum,
    pause,
)
from kit.errors import ObjectConflict, ObjectMissing, StorageUnavailable
from kit.multipart import MultipartUploads
from kit.presigning import SignedUpload
from kit.sealing import Fill
from kit.settings import StorageSettings

__all__ = ["ObjectInfo", "ObjectStorage", "SignedUpload"]
T = TypeVar("T")
_CHUNK_BYTES = 1 << 20
_BATCH = 1000
_VERSIONING_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One object as a listing or a HEAD shows it; `sha256` is known from a HEAD, where the store keeps it."""

    key: str
    size_bytes: int
    etag: str
    modified_at: datetime | None = None
    sha256: str | None = None


class ObjectStorage:
    """One bucket (and prefix) of an S3-compatible store. Keys are relative to the prefix.

    Every method can raise `StorageUnavailable`, when the store is out of order in whichever way.
    """

    def __init__(self, settings: StorageSettings) -> None:
        """Prepare the client; a process's first reads what S3 is from disk, so build it in a thread (about 0.3 s)."""
        self._bucket = Bucket(settings)
        self._client = self._bucket.client
        self.multipart = MultipartUploads(self._bucket)
        self._versioning = (0.0, False)  # asked again from when, and the last answer

    def close(self) -> None:
        """Take no more calls; those that run end within their time-outs."""
        self._bucket.close()

    async def create_bucket(self) -> None:
        """Create the bucket unless it exists."""

        def create() -> None:
            try:
                self._client.head_bucket(Bucket=self._bucket.name)
            except self._client.exceptions.ClientError as exc:
                if exc.response["Error"]["Code"] not in {"404", "NotFound", "NoSuchBucket"}:
                    raise
                self._client.create_bucket(Bucket=self._bucket.name)

        await self._bucket.run(create, key="")

    async def keep_versions(self) -> None:
        """Let the bucket keep what is replaced or deleted, which costs storage until it is erased."""
        versioning: Any = {"Status": "Enabled"}
        await self._bucket.run(
            lambda: self._client.put_bucket_versioning(Bucket=self._bucket.name, VersioningConfiguration=versioning),
            key="",
        )

    async def check(self) -> None:
        """Raise `StorageUnavailable` unless the bucket can be reached."""
        try:
            await self._bucket.run(lambda: self._client.head_bucket(Bucket=self._bucket.name), key="")
        except ObjectMissing as exc:
            raise StorageUnavailable("the object store has no such bucket; see LORRY_S3_BUCKET") from exc

    async def put(
        self, key: str, data: bytes, *, only_if_absent: bool = False, if_etag: str | None = None
    ) -> ObjectInfo:
        """Store `data` at `key`; the store checks its SHA-256. Again with the same bytes is no error.

        Raises:
            ObjectConflict: with `only_if_absent`, when the key is taken by other bytes; with `if_etag`, when the
                object there has another ETag.
            ObjectMissing: with `if_etag`, when there is no object.
        """
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if only_if_absent else {}
        if if_etag is not None:
            condition = {"IfMatch": if_etag}
        digest = await self._bucket.threads.run(lambda: hashlib.sha256(data).hexdigest())

        def put() -> Any:
            return self._client.put_object(
                **self._named(key),
                Body=data,
                ChecksumSHA256=checksum_of_digest(digest),
                **self._bucket.sse,
                **condition,
            )

        try:
            found = await self._bucket.run(put, key=key)
        except ObjectConflict:
            # Taken by others, or by an earlier try of ours whose answer was lost.
            there = await self._find(key)
            if there is None or there.sha256 != digest:
                raise
            return there
        return ObjectInfo(key=key, size_bytes=len(data), etag=found["ETag"], sha256=digest)

    async def get(self, key: str, *, etag: str | None = None) -> bytes:
        """Return the whole object.

        Raises:
            ObjectMissing: when there is none.
            ObjectConflict: when its ETag is not `etag` any more.
        """
        condition: Any = {"IfMatch": etag} if etag else {}

        def get() -> bytes:
            body = self._client.get_object(**self._named(key), ChecksumMode="ENABLED", **condition)["Body"]
            with body:
                return read_body(body)

        return await self._bucket.run(get, key=key)

    async def read(self, key: str, use: Callable[[Fill], T]) -> T:
        """Return what `use` makes of an object's bytes, as they come, without ever holding them all.

        `use` runs in one of the threads that wait for the store, and is called again, from the beginning, when an
        answer was damaged on its way; so it must not be heard of before it returns.

        Raises:
            ObjectMissing: when there is none.
        """

        def read() -> T:
            body = self._client.get_object(**self._named(key), ChecksumMode="ENABLED")["Body"]
            with body:
                try:
                    return use(partial(_fill, body))
                except Exception:
                    while read_body(body, _CHUNK_BYTES):  # raises if it is the way that is to blame, not the object
                        pass
                    raise

        return await self._bucket.run(read, key=key)

    async def stream(self, key: str, *, etag: str | None = None) -> AsyncIterator[bytes]:
        """Yield the object in chunks of at most 1 MiB; all are of one object, even if it is replaced meanwhile.

        Raises:
            ObjectMissing: when there is none.
            ObjectConflict: when its ETag is not `etag` any more.
        """
        done_bytes, failures = 0, 0
        size_bytes: int | None = None
        while size_bytes is None or done_bytes < size_bytes:
            try:
                body, etag, left_bytes = await self._open(key, etag=etag, start=done_bytes)
                size_bytes = done_bytes + left_bytes
                read = partial(read_body, body, _CHUNK_BYTES)
                try:
                    while chunk := await self._bucket.run(read, key=key, again=False):
                        done_bytes += len(chunk)
                        failures = 0 if len(chunk) == _CHUNK_BYTES else failures  # scraps are no progress
                        yield chunk
                finally:
                    body.close()
            except StorageUnavailable:
                failures += 1
                if failures >= self._bucket.attempts or done_bytes == size_bytes:  # all is there, and it is damaged
                    raise
                await pause(failures)

    async def head(self, key: str) -> ObjectInfo:
        """Return what the store knows of the object.

        Raises:
            ObjectMissing: when there is none.
        """
        found: Any = await self._bucket.run(
            lambda: self._client.head_object(**self._named(key), ChecksumMode="ENABLED"), key=key
        )
        return ObjectInfo(
            key=key,
            size_bytes=found["ContentLength"],
            etag=found["ETag"],
            modified_at=found["LastModified"],
            sha256=digest_of_checksum(found.get("ChecksumSHA256")),
        )

    async def copy(self, source: str, target: str, *, etag: str | None = None) -> None:
        """Copy inside the bucket, on the store's side.

        Raises:
            ObjectMissing: when there is no source.
            ObjectConflict: when the source's ETag is not `etag` any more.
        """
        condition: Any = {"CopySourceIfMatch": etag} if etag else {}

        def copy() -> None:
            origin: Any = self._named(source)
            self._client.copy_object(**self._named(target), CopySource=origin, **self._bucket.sse, **condition)

        await self._bucket.run(copy, key=source)

    async def delete(self, key: str) -> None:
        """Remove the object, in all its versions if the bucket keeps them; one that is not there is no error."""
        if await self._keeps_versions():
            await self._delete_versions([key])
        else:
            await self._bucket.run(lambda: self._client.delete_object(**self._named(key)), key=key)

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Remove objects as `delete` does, a thousand to a call; where versions are kept, each takes a call more."""
        remaining = iter(keys)
        while batch := list(islice(remaining, _BATCH)):
            if await self._keeps_versions():
                await self._delete_versions(batch)
            else:
                await self._delete_batch([{"Key": self._bucket.path(key)} for key in batch])

    async def erase(self, prefix: str) -> int:
        """Remove every object below `prefix`, in all its versions if the bucket keeps them; return how many.

        After it the bucket holds no byte of them. Objects that are written meanwhile may be left.
        """
        erased = 0
        while batch := await self._bucket.run(lambda: self._stored_versions(prefix), key=prefix):
            await self._delete_batch(batch)
            erased += len(batch)
        return erased

    async def count_versions(self, prefix: str) -> int:
        """Return how many versions and delete markers the bucket holds below `prefix`, up to a thousand."""
        return len(await self._bucket.run(lambda: self._stored_versions(prefix), key=prefix))

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """Return every object whose key starts with `prefix`, in key order."""
        found, after = list[ObjectInfo](), ""
        while page := await self.list_page(prefix, after=after):
            found += page
            after = page[-1].key
        return found

    async def list_page(self, prefix: str, *, after: str = "", limit: int = _BATCH) -> Sequence[ObjectInfo]:
        """Return the next objects, in key order, whose key starts with `prefix` and comes after `after`."""
        start: Any = {"StartAfter": self._bucket.path(after)} if after else {}

        def page() -> list[ObjectInfo]:
            listed = self._client.list_objects_v2(
                Bucket=self._bucket.name, Prefix=self._bucket.path(prefix), MaxKeys=min(limit, _BATCH), **start
            )
            return [
                ObjectInfo(
                    key=self._bucket.key(found["Key"]),
                    size_bytes=found["Size"],
                    etag=found["ETag"],
                    modified_at=found["LastModified"],
                )
                for found in listed.get("Contents", [])
            ]

        return await self._bucket.run(page, key=prefix)

    async def sign_get(self, key: str, *, expires_seconds: int, now: datetime | None = None) -> str:
        """Return a URL that reads the object until it expires, counted from `now`; None = this host's clock."""
        return await self._bucket.sign("GET", key, expires_seconds=expires_seconds, now=now)

    async def sign_put(
        self,
        key: str,
        *,
        size_bytes: int,
        sha256: str | None = None,
        only_if_absent: bool = False,
        expires_seconds: int,
        now: datetime | None = None,
    ) -> SignedUpload:
        """Return a URL that takes one PUT of so many bytes: the store refuses another length, and another digest.

        Args:
            key: where to.
            size_bytes: the length.
            sha256: the digest; None = any bytes.
            only_if_absent: whether an object that is there already stays (412).
            expires_seconds: life of the URL.
            now: when it begins; None = this host's clock.
        """
        headers = {SSE_HEADERS[name]: value for name, value in self._bucket.sse.items()}
        if sha256 is not None:
            headers["x-amz-checksum-sha256"] = checksum_of_digest(sha256)
        if only_if_absent:
            headers["if-none-match"] = "*"
        url = await self._bucket.sign(
            "PUT",
            key,
            expires_seconds=expires_seconds,
            headers={**headers, "content-length": str(size_bytes)},
            now=now,
        )
        return SignedUpload(url=url, headers=headers)

    async def _open(self, key: str, *, etag: str | None, start: int) -> tuple[Any, str, int]:
        """Return the object's body from byte `start` on, its ETag, and how many bytes are left."""
        more: Any = {"IfMatch": etag} if etag else {}
        if start:
            more["Range"] = f"bytes={start}-"
        found = await self._bucket.run(
            lambda: self._client.get_object(**self._named(key), ChecksumMode="ENABLED", **more), key=key
        )
        return found["Body"], found["ETag"], found["ContentLength"]

    async def _keeps_versions(self) -> bool:
        """Say whether the bucket keeps what is deleted; asked again after a minute."""
        now = time.monotonic()
        if now >= self._versioning[0]:
            found = await self._bucket.run(
                lambda: self._client.get_bucket_versioning(Bucket=self._bucket.name).get("Status"), key=""
            )
            # Versions that were kept before versioning was suspended are still there.
            self._versioning = (now + _VERSIONING_SECONDS, found in {"Enabled", "Suspended"})
        return self._versioning[1]

    async def _delete_versions(self, keys: Sequence[str]) -> None:
        found = await asyncio.gather(*(self._bucket.run(partial(self._stored_versions, key), key=key) for key in keys))
        paths = {self._bucket.path(key) for key in keys}
        stored = [each for page in found for each in page if each["Key"] in paths]
        for at in range(0, len(stored), _BATCH):
            await self._delete_batch(stored[at : at + _BATCH])

    async def _find(self, key: str) -> ObjectInfo | None:
        try:
            return await self.head(key)
        except ObjectMissing:
            return None

    def _stored_versions(self, prefix: str) -> Sequence[dict[str, str]]:
        """Return up to a thousand versions and delete markers below a prefix."""
        page = self._client.list_object_versions(
            Bucket=self._bucket.name, Prefix=self._bucket.path(prefix), MaxKeys=_BATCH
        )
        found: Iterator[Any] = iter([*page.get("Versions", []), *page.get("DeleteMarkers", [])])
        return [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]

    async def _delete_batch(self, batch: Sequence[dict[str, str]]) -> None:
        listed: Any = {"Objects": list(batch), "Quiet": True}
        answer: Any = await self._bucket.run(
            lambda: self._client.delete_objects(Bucket=self._bucket.name, Delete=listed), key=""
        )
        left = [each for each in answer.get("Errors", []) if each["Code"] != "NoSuchKey"]
        if left:
            raise StorageUnavailable(f"the object store kept {len(left)} of {len(batch)} objects: {left[0]['Code']}")

    def _named(self, key: str) -> Any:
        return {"Bucket": self._bucket.name, "Key": self._bucket.path(key)}


def _fill(body: Any, view: memoryview) -> int:
    """Fill a buffer with the next bytes of an answer; return how many they are, fewer only at its end."""
    filled = 0
    while filled < len(view) and (data := read_body(body, len(view) - filled)):
        view[filled : filled + len(data)] = data
        filled += len(data)
    return filled
