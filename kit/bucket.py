"""One bucket of an S3, and how it is called: in threads, with time-outs, again after failures, with our errors."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from kit.aws import DAMAGED, FOREIGN_ERRORS, Threads, client_config, error_code, outage, session
from kit.errors import ObjectConflict, ObjectMissing, StorageUnavailable
from kit.presigning import Presigner, SigningKey
from kit.settings import StorageSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")
_MISSING = {"NoSuchKey", "404", "NotFound", "NoSuchUpload", "NoSuchVersion"}
_CONFLICT = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_FIRST_PAUSE_SECONDS = 0.1


class Bucket:
    """One bucket and key prefix; what its methods take and return are keys below the prefix."""

    def __init__(self, settings: StorageSettings) -> None:
        self.name = settings.s3_bucket
        self.attempts = settings.s3_attempts
        self.sse = _sse(settings)
        self._prefix = f"{settings.s3_prefix.strip('/')}/" if settings.s3_prefix.strip("/") else ""
        self.threads = Threads(settings.s3_threads, name="s3")
        self._session = session(
            access_key_id=settings.s3_access_key_id,
            secret_access_key=settings.s3_secret_access_key,
            region=settings.s3_region,
        )
        self.client: S3Client = self._session.client(
            "s3",
            endpoint_url=settings.s3_endpoint_url,
            config=client_config(
                timeout_seconds=settings.s3_timeout_seconds,
                attempts=settings.s3_attempts,
                connections=settings.s3_threads,
                signature_version="s3v4",
                s3={"addressing_style": "path"} if settings.s3_endpoint_url else {},
            ),
        )
        self._presigner = Presigner(self._url(settings), region=settings.s3_region)

    def path(self, key: str) -> str:
        """Return the key as the store knows it."""
        return self._prefix + key

    def key(self, path: str) -> str:
        """Return the key for what a listing shows."""
        return path.removeprefix(self._prefix)

    async def run(self, function: Callable[[], T], *, key: str, again: bool = True) -> T:
        """Return what a blocking call of the client returns; with `again`, a damaged answer is asked for again.

        Raises:
            ObjectMissing, ObjectConflict: as the store says.
            StorageUnavailable: when it is out of order, in whichever way.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                with translated(key):
                    return await self.threads.run(function)
            except StorageUnavailable as exc:
                if not again or attempt == self.attempts or not isinstance(exc.__cause__, DAMAGED):
                    raise
            await pause(attempt)
        raise AssertionError("the last attempt returns or raises")

    async def sign(
        self,
        method: str,
        key: str,
        *,
        expires_seconds: int,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        now: datetime | None = None,
    ) -> str:
        """Return a URL for one request, which must carry exactly these headers; its life counts from `now`.

        Raises:
            StorageUnavailable: when there are no credentials to sign with.
        """
        by = await self._credentials()
        path = self.path(key)
        return self._presigner.sign(
            method, path, by=by, expires_seconds=expires_seconds, query=query, headers=headers, now=now
        )

    async def _credentials(self) -> SigningKey:
        found = self._session.get_credentials()
        if found is None:
            raise StorageUnavailable("there are no credentials for S3: set LORRY_S3_ACCESS_KEY_ID and its secret")
        if getattr(found, "refresh_needed", lambda: False)():
            frozen = await self.threads.run(found.get_frozen_credentials)  # asks the host's metadata service
        else:
            frozen = found.get_frozen_credentials()
        return SigningKey(
            access_key_id=frozen.access_key, secret_access_key=frozen.secret_key, session_token=frozen.token
        )

    def _url(self, settings: StorageSettings) -> str:
        endpoint = self.client.meta.endpoint_url.rstrip("/")
        if settings.s3_endpoint_url or "." in self.name:  # a dot in the name does not fit the store's certificate
            return f"{endpoint}/{self.name}"
        scheme, _, host = endpoint.partition("://")
        return f"{scheme}://{self.name}.{host}"

    def close(self) -> None:
        """Take no more calls."""
        self.threads.close()


async def pause(attempt: int) -> None:
    """Wait a random while that grows with the number of the attempt that failed, from 1."""
    await asyncio.sleep(random.uniform(0, _FIRST_PAUSE_SECONDS * 2**attempt))


def checksum(data: bytes) -> str:
    """Return the SHA-256 of `data` as S3 writes it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def checksum_of_digest(sha256: str) -> str:
    """Return a hexadecimal SHA-256 as S3 writes it."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def digest_of_checksum(found: str | None) -> str | None:
    """Return S3's SHA-256 in hexadecimal; None when the store told none, or one of parts."""
    return base64.b64decode(found).hex() if found and "-" not in found else None


@contextmanager
def translated(key: str) -> Iterator[None]:
    """Turn the errors of S3 that callers can act on into ours; let the rest rise."""
    try:
        yield
    except FOREIGN_ERRORS as exc:
        code = error_code(exc)
        if code in _MISSING:
            raise ObjectMissing(f"there is no object at {key}") from exc
        if code in _CONFLICT:
            raise ObjectConflict(f"the object at {key} is not in the expected state") from exc
        if code == "NoSuchBucket":
            raise StorageUnavailable("the object store has no such bucket; see LORRY_S3_BUCKET") from exc
        if why := outage(exc):
            raise StorageUnavailable(f"the object store {why}") from exc  # logged: no key, it names a user
        raise


def _sse(settings: StorageSettings) -> dict[str, Any]:
    """Return the parameters that ask the store to encrypt at rest."""
    if not settings.s3_sse:
        return {}
    chosen: dict[str, Any] = {"ServerSideEncryption": settings.s3_sse}
    if settings.s3_sse == "aws:kms" and settings.s3_sse_kms_key_id:
        chosen["SSEKMSKeyId"] = settings.s3_sse_kms_key_id
    return chosen


SSE_HEADERS = {
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
}
