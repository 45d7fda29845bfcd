"""The object store: S3, through boto3, with no call that blocks an event loop.

This is the only file that imports boto3. Every method that talks to S3 runs in a worker thread.
Transfers carry SHA-256 checksums, so that bytes damaged on the way are refused by the store.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

from kit.errors import ObjectConflict, ObjectMissing, StorageUnavailable
from kit.settings import StorageSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CHUNK_BYTES = 1 << 20
_MISSING = {"NoSuchKey", "404", "NotFound", "NoSuchUpload"}
_CONFLICT = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_OUTAGE = {"InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "500", "502", "503", "504"}


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One object as a listing or a HEAD shows it."""

    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True, kw_only=True)
class SignedUpload:
    """A URL that takes one PUT, and the headers which that PUT must carry."""

    url: str
    headers: dict[str, str]


class ObjectStorage:
    """One bucket (and prefix) of an S3-compatible store. Keys are relative to the prefix."""

    def __init__(self, settings: StorageSettings) -> None:
        secret = settings.s3_secret_access_key
        self._bucket = settings.s3_bucket
        self._prefix = f"{settings.s3_prefix.strip('/')}/" if settings.s3_prefix.strip("/") else ""
        self._client: S3Client = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint_url,
            region_name=settings.s3_region,
            aws_access_key_id=settings.s3_access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=Config(
                signature_version="s3v4",
                connect_timeout=settings.s3_timeout_seconds,
                read_timeout=settings.s3_timeout_seconds,
                retries={"mode": "standard", "max_attempts": 4},
                max_pool_connections=32,
                s3={"addressing_style": "path"} if settings.s3_endpoint_url else {},
            ),
        )

    async def create_bucket(self) -> None:
        """Create the bucket unless it exists."""
        await asyncio.to_thread(self._create_bucket)

    def _create_bucket(self) -> None:
        with _translated(self._bucket):
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except ClientError as exc:
                if exc.response["Error"]["Code"] not in _MISSING | {"NoSuchBucket"}:
                    raise
                self._client.create_bucket(Bucket=self._bucket)

    async def check(self) -> None:
        """Raise `StorageUnavailable` unless the bucket can be reached."""

        def head() -> None:
            with _translated(self._bucket):
                self._client.head_bucket(Bucket=self._bucket)

        await asyncio.to_thread(head)

    async def put(self, key: str, data: bytes, *, only_if_absent: bool = False) -> None:
        """Store `data` at `key`; the store checks its SHA-256.

        Raises:
            ObjectConflict: with `only_if_absent`, when the key is taken.
        """
        extra: dict[str, Any] = {"IfNoneMatch": "*"} if only_if_absent else {}

        def put() -> None:
            with _translated(key):
                self._client.put_object(
                    Bucket=self._bucket, Key=self._prefix + key, Body=data, ChecksumAlgorithm="SHA256", **extra
                )

        await asyncio.to_thread(put)

    async def get(self, key: str) -> bytes:
        """Return the whole object.

        Raises:
            ObjectMissing: when there is none.
        """

        def get() -> bytes:
            with _translated(key):
                body = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"]
                data: bytes = body.read()
                return data

        return await asyncio.to_thread(get)

    async def stream(self, key: str, *, etag: str | None = None) -> AsyncIterator[bytes]:
        """Yield the object in chunks of at most 1 MiB.

        Raises:
            ObjectMissing: when there is none.
            ObjectConflict: when its ETag is not `etag` any more.
        """
        extra: dict[str, Any] = {"IfMatch": etag} if etag else {}

        def open_body() -> Any:
            with _translated(key):
                return self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, **extra)["Body"]

        body = await asyncio.to_thread(open_body)

        def read() -> bytes:
            with _translated(key):
                data: bytes = body.read(_CHUNK_BYTES)
                return data

        try:
            while chunk := await asyncio.to_thread(read):
                yield chunk
        finally:
            body.close()

    async def head(self, key: str) -> ObjectInfo:
        """Return size and ETag.

        Raises:
            ObjectMissing: when there is none.
        """

        def head() -> ObjectInfo:
            with _translated(key):
                found = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
            return ObjectInfo(key=key, size_bytes=found["ContentLength"], etag=found["ETag"])

        return await asyncio.to_thread(head)

    async def copy(self, source: str, target: str, *, etag: str | None = None) -> None:
        """Copy inside the bucket, on the store's side.

        Raises:
            ObjectMissing: when there is no source.
            ObjectConflict: when the source's ETag is not `etag` any more.
        """
        extra: dict[str, Any] = {"CopySourceIfMatch": etag} if etag else {}

        def copy() -> None:
            with _translated(source):
                self._client.copy_object(
                    Bucket=self._bucket,
                    Key=self._prefix + target,
                    CopySource={"Bucket": self._bucket, "Key": self._prefix + source},
                    **extra,
                )

        await asyncio.to_thread(copy)

    async def delete(self, key: str) -> None:
        """Remove the object; one that is not there is no error."""

        def delete() -> None:
            with _translated(key):
                self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

        await asyncio.to_thread(delete)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """Return every object whose key starts with `prefix`, in key order."""

        def pages() -> Iterator[ObjectInfo]:
            paginator = self._client.get_paginator("list_objects_v2")
            for page in paginator.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for found in page.get("Contents", []):
                    key = found["Key"].removeprefix(self._prefix)
                    yield ObjectInfo(key=key, size_bytes=found["Size"], etag=found["ETag"])

        def collect() -> list[ObjectInfo]:
            with _translated(prefix):
                return list(pages())

        return await asyncio.to_thread(collect)

    async def sign_get(self, key: str, *, expires_seconds: int) -> str:
        """Return a URL that reads the object until it expires."""
        return await asyncio.to_thread(
            self._client.generate_presigned_url,
            "get_object",
            Params={"Bucket": self._bucket, "Key": self._prefix + key},
            ExpiresIn=expires_seconds,
        )

    async def sign_put(self, key: str, *, sha256: str, size_bytes: int, expires_seconds: int) -> SignedUpload:
        """Return a URL that takes exactly these bytes: the store refuses another digest or length."""
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        url = await asyncio.to_thread(
            self._client.generate_presigned_url,
            "put_object",
            Params={
                "Bucket": self._bucket,
                "Key": self._prefix + key,
                "ChecksumSHA256": checksum,
                "ContentLength": size_bytes,
            },
            ExpiresIn=expires_seconds,
        )
        return SignedUpload(url=url, headers={"x-amz-checksum-sha256": checksum})


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """Turn the boto3 errors that callers can act on into ours; let the rest rise."""
    try:
        yield
    except ClientError as exc:
        code = exc.response["Error"]["Code"]
        if code in _MISSING:
            raise ObjectMissing(f"there is no object at {key}") from exc
        if code in _CONFLICT:
            raise ObjectConflict(f"the object at {key} is not in the expected state") from exc
        if code in _OUTAGE:
            raise StorageUnavailable(f"the object store answered {code}") from exc  # logged: no key, it names a user
        raise
    except (ConnectionError, HTTPClientError) as exc:
        raise StorageUnavailable(f"the object store did not answer: {type(exc).__name__}") from exc
    except BotoCoreError as exc:
        if "Credentials" in type(exc).__name__:
            raise StorageUnavailable("no S3 credentials: set LORRY_S3_ACCESS_KEY_ID and its secret") from exc
        raise
